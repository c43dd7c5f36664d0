"""The settings of a project: where they are looked for, what wins, and what is said about each mistake."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.project.needs import EffectQuery, Mount, Network
from harness.project.schema import KEYS
from harness.project.settings import DEFAULT, Settings, load

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _environment_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS.values():
        if key.variable is not None:
            monkeypatch.delenv(key.variable, raising=False)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a settings file into a project, which is the working directory; it has a `.git`."""
    project = tmp_path / "shop"
    (project / ".git").mkdir(parents=True)
    monkeypatch.chdir(project)

    def file(text: str | bytes, name: str = "harness.toml") -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return project

    return file


ALL = """
app = "shop.app"
folder = "backend"
pythonpath = ["src", "lib"]
options = ["--pool=threads"]
workers = 3
env_file = ".env.test"
python = "3.12"
dependencies = ["requirements/test.txt", "redis>=5", "shop @ https://example.com/shop.whl"]
apt = ["libpq5", "libxml2=2.9"]
dockerfile = "Dockerfile"
image = "registry:5000/shop:1"
queues = ["mails", "reports"]
prepare = ["python manage.py migrate"]
writable = ["media"]
mounts = ["certs:/etc/shop/certs", "data:/data:rw"]
services = ["postgresql"]
network = "open"

[effects]
order = "SELECT number FROM shop_order"
bill.query = '''
-- The bills are in a file of their own.
with bill as (select * from bills) select number from bill'''
bill.database = "data/bills.db"
refund = { query = "SELECT id FROM refund", database = "{database.url}" }

[env]
SMTP = "{mailbox.host}:{mailbox.port}"
FORM = "{{}}"
"""


@pytest.fixture
def complete(write: Write) -> Path:
    """Return a project that says every setting in harness.toml, and has all the files that it names."""
    project = write(ALL)
    for folder in ("backend", "src", "lib", "certs", "data", "requirements"):
        (project / folder).mkdir()
    for name in ("requirements/test.txt", "Dockerfile"):
        (project / name).touch()
    (project / ".env.test").write_text("CURRENCY=EUR\nFORM=a {b}\n")
    return project


def test_each_key_has_a_value_and_each_value_a_key() -> None:
    assert {one.name for one in fields(Settings)} - {"sources", "project"} == KEYS.keys()


def test_every_key_is_read_and_paths_are_relative_to_the_file(complete: Path) -> None:
    said = load(complete)
    assert (said.app, said.workers, said.python, said.image) == ("shop.app", 3, "3.12", "registry:5000/shop:1")
    assert said.folder == complete / "backend"
    assert said.pythonpath == (complete / "src", complete / "lib")
    assert said.options == ("--pool=threads",)
    requirements = complete / "requirements" / "test.txt"
    assert said.dependencies == (requirements, "redis>=5", "shop @ https://example.com/shop.whl")
    assert (said.apt, said.dockerfile) == (("libpq5", "libxml2=2.9"), complete / "Dockerfile")
    assert (said.queues, said.prepare) == (("mails", "reports"), ("python manage.py migrate",))
    assert (said.writable, said.services, said.network) == (("media",), ("postgresql",), Network.OPEN)
    assert said.mounts == (
        Mount(host=complete / "certs", inside="/etc/shop/certs"),
        Mount(host=complete / "data", inside="/data", read_only=False),
    )
    assert said.effects == {
        "order": EffectQuery(query="SELECT number FROM shop_order"),
        "bill": EffectQuery(query=said.effects["bill"].query, database="data/bills.db"),
        "refund": EffectQuery(query="SELECT id FROM refund"),
    }
    # The table wins over the file; what the file says is no template.
    assert said.env == {"CURRENCY": "EUR", "FORM": "{{}}", "SMTP": "{mailbox.host}:{mailbox.port}"}


def test_each_setting_knows_where_it_was_said(complete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "4")
    said = load(complete).over("the marker", {"options": ["--pool=solo"], "workers": None})
    assert said.source("app") == f"{complete}/harness.toml: app"
    assert (said.source("workers"), said.workers) == ("HARNESS_WORKERS", 4)
    assert (said.source("options"), said.options) == ("the marker", ("--pool=solo",))
    assert said.source("env") == f"{complete}/harness.toml: env, {complete}/.env.test"
    assert load(complete.parent).source("app") == DEFAULT


@pytest.mark.parametrize(
    ("text", "name"),
    [('app = "shop.app"', "harness.toml"), ('[tool.harness]\napp = "shop.app"', "pyproject.toml")],
)
def test_a_file_is_found_from_the_project_and_from_below_it(write: Write, text: str, name: str) -> None:
    project = write(text, name)
    below = project / "tests" / "unit"
    below.mkdir(parents=True)
    for start in (project, below, Path("tests/..")):
        found = load(start)
        # What is said for the project holds from anywhere in it.
        assert (found.app, found.folder) == ("shop.app", project)


def test_without_a_file_the_app_is_where_the_search_began(write: Write) -> None:
    project = write("", "readme")
    assert load(project / "tests") == Settings(folder=project / "tests")


def test_a_project_without_settings_does_not_take_those_of_the_project_around_it(write: Write) -> None:
    project = write('app = "around.app"')
    write('[project]\nname = "inner"', "inner/pyproject.toml")
    write("", "repository/.git/HEAD")
    assert load(project / "inner").app is None
    assert load(project / "repository").app is None
    (project / "plain").mkdir()
    assert load(project / "plain").app == "around.app"


def test_an_empty_file_beside_the_other_does_no_harm(write: Write) -> None:
    write("", "harness.toml")
    assert load(write('[tool.harness]\napp = "shop.app"', "pyproject.toml")).app == "shop.app"
    write('app = "own.app"', "harness.toml")
    assert load(write("[tool.harness]\n[tool.ruff]\n", "pyproject.toml")).app == "own.app"


def test_settings_in_both_files_are_refused(write: Write) -> None:
    write('app = "shop.app"')
    project = write('[tool.harness]\napp = "shop.app"', "pyproject.toml")
    with pytest.raises(UsageError, match=r"harness\.toml and \[tool\.harness\] in .*pyproject\.toml both have"):
        load(project)


# ------------------------------------------------------------------------------------------------- what is wrong

NEAR = [
    ("appp", "app"),
    ("optoins", "options"),
    ("env-file", "env_file"),
    ("environment", None),
    ("app_folder", "folder"),
    ("Workers", "workers"),
    ("colour", None),
]


@pytest.mark.parametrize(("key", "near"), NEAR, ids=[key for key, _ in NEAR])
def test_an_unknown_key_is_named_with_its_nearest(write: Write, key: str, near: str | None) -> None:
    project = write(f"{key} = 1")
    with pytest.raises(UsageError) as wrong:
        load(project)
    said = str(wrong.value)
    assert said.startswith(f"{project}/harness.toml: {key} is no setting. ")
    assert said.endswith(f"Did you mean {near}?" if near else "services, results, effects, network.")
    write("", "harness.toml")
    with pytest.raises(UsageError, match=rf"pyproject\.toml: tool\.harness\.{key} is no setting"):
        load(write(f"[tool.harness]\n{key} = 1", "pyproject.toml"))


def test_the_table_of_pyproject_in_the_own_file_is_told(write: Write) -> None:
    with pytest.raises(UsageError, match=r"at the top, without \[tool\.harness\]"):
        load(write('[tool.harness]\napp = "shop.app"'))


WRONG = [
    ("app = 3", "app is 3, a whole number; it should be a text, such as: app = "),
    ('app = ""', "app is '', a text; it should be a text that is not empty"),
    ('app = "a\\u0000"', "that is not empty and has no NUL"),
    ("folder = []", "folder is [], a list; it should be a text"),
    (
        'pythonpath = "src"',
        "pythonpath is 'src', a text; it should be a list of folders, such as: pythonpath = [\"src\"]",
    ),
    ('pythonpath = ["src:lib"]', "pythonpath[0] is 'src:lib', a text; it should be the path of one folder"),
    ('options = "-c 4"', "options is '-c 4', a text; it should be a list of texts, such as: options = [\"--conc"),
    ('options = ["-c", 4]', "options[1] is 4, a whole number; it should be a text"),
    ('workers = "2"', "workers is '2', a text; it should be a whole number, 0 or more, such as: workers = 2"),
    ("workers = true", "workers is true, a truth value; it should be a whole number"),
    ("workers = 1.5", "workers is 1.5, a number; it should be a whole number"),
    ("workers = -1", "workers is -1, a whole number; it should be a whole number, 0 or more"),
    ('env = ["A=1"]', "env is ['A=1'], a list; it should be a table of texts, such as: env = {"),
    ("env.PORT = 25", "env.PORT is 25, a whole number; it should be a text (put numbers in quotes)"),
    ('env."A=B" = "1"', "env has a key that is 'A=B', a text; it should be a table whose keys are names"),
    ("python = 3.12", "python is 3.12, a number; it should be a version as a text, such as"),
    ('python = ">=3"', "python is '>=3', a text; it should be a version"),
    ("dependencies = 1", "dependencies is 1, a whole number; it should be a list of requirements or files"),
    ('dependencies = ["a", []]', "dependencies[1] is [], a list; it should be a text"),
    ('apt = ["LibPQ"]', "apt[0] is 'LibPQ', a text; it should be the name of a Debian package"),
    ('queues = ["a,b"]', "queues[0] is 'a,b', a text; it should be the name of one queue"),
    ('prepare = "migrate"', "prepare is 'migrate', a text; it should be a list of commands"),
    ('writable = "media"', "writable is 'media', a text; it should be true, false, or a list of paths"),
    ('writable = ["/var"]', "writable[0] is '/var', a text; it should be a path below the app's folder"),
    ('writable = ["a/../.."]', "it should be a path below the app's folder"),
    ('mounts = "certs"', "mounts is 'certs', a text; it should be a table, or a list"),
    ('mounts = ["certs"]', "mounts[0] is 'certs', a text; it should be of the form host:inside"),
    ('mounts = ["certs:etc"]', "mounts[0] is 'etc', a text; it should be an absolute path inside the node"),
    ('mounts = ["certs:/"]', "mounts[0] is '/', a text"),
    ('mounts = ["certs:/etc:no"]', "with :ro, :rw or nothing after it"),
    ("mounts.certs = 3", "mounts.certs is 3, a whole number; it should be a text"),
    ('network = "opened"', 'network is \'opened\', a text; it should be "closed" or "open", such as: network = '),
    ("network = true", "network is true, a truth value"),
    ('effects = ["SELECT 1"]', "effects is ['SELECT 1'], a list; it should be a table of queries, such as: effects"),
    ('effects.mail = "SELECT 1"', "effects has a key that is 'mail', a text; it should be a table whose keys are"),
    ('effects."a:b" = "SELECT 1"', "effects has a key that is 'a:b', a text; it should be a table whose keys are"),
    ('effects.order = "shop_order"', "effects.order is 'shop_order', a text; it should be a query that begins with"),
    ('effects.order = { table = "x" }', "effects.order is {'table': 'x'}, a table; it should be a query as a text, or"),
    ('effects.order = { query = "SELECT 1", database = "sqlite:///x" }', "effects.order.database is 'sqlite:///x', a"),
    ('effects.order = { query = "SELECT 1", database = "../x.db" }', "effects.order.database is '../x.db', a text; it"),
    ("app = 2026-10-24", "a date or time; it should be a text"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _ in WRONG])
def test_a_value_of_another_type_says_what_was_seen_and_what_should_be_there(
    write: Write, line: str, said: str
) -> None:
    project = write(line)
    with pytest.raises(UsageError) as wrong:
        load(project)
    assert f"{project}/harness.toml: " in str(wrong.value)
    assert said in str(wrong.value)
    assert "\n" not in str(wrong.value)


SPOKEN = [
    ("HARNESS_APP", "x.app", "app", "x.app"),
    ("HARNESS_APP_FOLDER", "src", "folder", "src"),
    ("HARNESS_PYTHONPATH", "src lib", "pythonpath", ("src", "lib")),
    ("HARNESS_OPTIONS", "--pool=solo -Q 'a b'", "options", ("--pool=solo", "-Q", "a b")),
    ("HARNESS_WORKERS", "0", "workers", 0),
    ("HARNESS_PYTHON", "3.13", "python", "3.13"),
    (
        "HARNESS_DEPENDENCIES",
        "redis>=5 'a; python_version>\"3\"'",
        "dependencies",
        ("redis>=5", 'a; python_version>"3"'),
    ),
    ("HARNESS_APT", "libpq5", "apt", ("libpq5",)),
    ("HARNESS_WORKER_IMAGE", "own:1", "image", "own:1"),
    ("HARNESS_QUEUES", "one two", "queues", ("one", "two")),
    ("HARNESS_PREPARE", "python manage.py migrate\n\n ls -l ", "prepare", ("python manage.py migrate", "ls -l")),
    ("HARNESS_WRITABLE", "True", "writable", True),
    ("HARNESS_WRITABLE", "media logs", "writable", ("media", "logs")),
    ("HARNESS_SERVICES", "redis", "services", ("redis",)),
    ("HARNESS_NETWORK", "closed", "network", Network.CLOSED),
]


@pytest.mark.parametrize(("variable", "text", "key", "value"), SPOKEN)
def test_a_variable_wins_over_the_file(  # noqa: PLR0917 - two fixtures and four parameters, which pytest gives by name.
    complete: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, key: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    found = load(complete)
    if key in {"folder", "pythonpath"}:
        # Relative to the working directory, as with any command.
        value = complete / str(value) if key == "folder" else tuple(complete / str(one) for one in ("src", "lib"))
    assert getattr(found, key) == value
    assert found.source(key) == variable
    monkeypatch.setenv(variable, "")
    assert found != load(complete)


def test_each_key_has_its_variable_but_the_table() -> None:
    covered = {variable for variable, *_ in SPOKEN} | {
        "HARNESS_ENV_FILE",
        "HARNESS_DOCKERFILE",
        "HARNESS_MOUNTS",
        "HARNESS_RESULTS",
    }
    assert {key.variable for key in KEYS.values()} == {*covered, None}
    assert [name for name, key in KEYS.items() if key.variable is None] == ["env", "effects"]


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (
            "HARNESS_WORKERS",
            "two",
            "HARNESS_WORKERS is 'two', a text; it should be a whole number, 0 or more, such as: HARN",
        ),
        ("HARNESS_OPTIONS", "'-c", "HARNESS_OPTIONS cannot be split into words: No closing quotation."),
        ("HARNESS_QUEUES", "a b,c", "HARNESS_QUEUES[1] is 'b,c', a text; it should be the name of one queue"),
        ("HARNESS_NETWORK", "public", "HARNESS_NETWORK is 'public', a text; it should be"),
        ("HARNESS_APP_FOLDER", "nowhere", "HARNESS_APP_FOLDER names "),
        ("HARNESS_ENV_FILE", "nowhere", "HARNESS_ENV_FILE names "),
        ("HARNESS_MOUNTS", "nowhere:/data", "HARNESS_MOUNTS names "),
    ],
)
def test_a_wrong_variable_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, said: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError) as wrong:
        load(write("", "readme"))
    assert str(wrong.value).startswith(said)


MISSING = [
    ('folder = "gone"', "folder", "which is no folder."),
    ('pythonpath = ["gone"]', "pythonpath", "which is no folder."),
    ('env_file = "gone"', "env_file", "which is no file."),
    ('dockerfile = "gone"', "dockerfile", "which is no file."),
    ('dependencies = "gone"', "dependencies", "which is no file. A single requirement goes into a list."),
    ('dependencies = ["gone.txt"]', "dependencies", "which is no file."),
    ('mounts = { gone = "/data" }', "mounts", "which does not exist."),
]


@pytest.mark.parametrize(("line", "key", "said"), MISSING, ids=[line for line, *_ in MISSING])
def test_a_file_that_is_missing_is_named(write: Write, line: str, key: str, said: str) -> None:
    project = write(line)
    with pytest.raises(UsageError) as wrong:
        load(project)
    assert str(wrong.value).startswith(f"{project}/harness.toml: {key} names {project}/gone")
    assert said in str(wrong.value)


def test_a_missing_file_does_no_harm_where_a_variable_names_another(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write('env_file = ".env"')
    (project / "ci.env").write_text("A=1")
    monkeypatch.setenv("HARNESS_ENV_FILE", "ci.env")
    assert load(project).env == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"app = 1\n\napp 3", r"harness\.toml is no TOML: .*line 3"),
        (b"app = '1'\n\xff", r"harness\.toml is not UTF-8, in line 2"),
        (b"app = " + b"[" * 100_000, r"harness\.toml is no TOML"),
    ],
    ids=["grammar", "encoding", "depth"],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(write: Write, text: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(write(text))


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nharness = 3", "[tool]\nharness = []"])
def test_a_table_that_is_none_is_told(write: Write, text: str) -> None:
    with pytest.raises(UsageError, match=r"pyproject\.toml: tool\.harness is no table"):
        load(write(text, "pyproject.toml"))


def test_a_link_is_followed_and_one_that_leads_to_itself_does_no_harm(write: Write, tmp_path: Path) -> None:
    project = write('app = "shop.app"')
    (tmp_path / "link").symlink_to(project)
    assert load(tmp_path / "link").folder == project
    (project / "loop").symlink_to(project / "loop")
    assert load(project / "loop").app == "shop.app"


def test_a_file_that_cannot_be_read_is_told(write: Write) -> None:
    project = write("", "readme")
    os.mkfifo(project / "harness.toml")
    with pytest.raises(UsageError, match=r"the settings of .* cannot be read: .*no regular file"):
        load(project)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "{mailbox.hots}",
            r"env\.A asks for \{mailbox\.hots\}, which no stack knows\. Did you mean \{mailbox\.host\}\?",
        ),
        ("{x}", r"env\.A asks for \{x\}, which no stack knows\. Templates are \{broker\.url\}, \{database\.host\}, "),
        (
            "{secret",
            r"env\.A has a single \{ that belongs to no template: a brace of its own is written twice, as \{\{\.",
        ),
        ("}", r"env\.A has a single \}"),
    ],
)
def test_an_unknown_template_is_named_before_anything_starts(write: Write, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as wrong:
        load(write(f'env.A = "{value}"'))
    assert "secret" not in str(wrong.value)


# ------------------------------------------------------------------------------- what is said at the place of use


def test_what_is_said_over_the_settings_wins_and_its_environment_is_added(write: Write) -> None:
    project = write('app = "shop.app"\nqueues = ["mails"]\nenv.A = "{broker.url}"\nenv.B = "1"')
    said = load(project).over("the marker", {"app": None, "folder": "src", "env": {"B": "{}"}}, folder=project / "x")
    assert (said.app, said.folder, said.queues) == ("shop.app", project / "x" / "src", ("mails",))
    # A marker's values are taken as they are.
    assert said.env == {"A": "{broker.url}", "B": "{{}}"}


@pytest.mark.parametrize("options", [["-Q", "a"], ["-Qa"], ["--queues=a"], ["--queues", "a"]])
def test_options_that_name_queues_win_over_queues_that_were_said_before(
    write: Write, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    project = write('queues = ["mails"]')
    assert load(project).over("the marker", {"options": options}).queues == ()
    assert load(project).over("the marker", {"options": ["--pool=solo"]}).queues == ("mails",)
    monkeypatch.setenv("HARNESS_OPTIONS", " ".join(options))
    assert load(project).queues == ()
    assert "queues" not in load(project).sources
    with pytest.raises(UsageError, match=r"harness\.toml: queues and .*harness\.toml: options both name queues"):
        load(write(f"queues = ['mails']\noptions = {options!r}"))
