"""What is written into a project: nothing is overwritten, and nothing is written twice."""

import os
import tomllib
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.project.discovery import discover
from harness.project.proposed_values import MADE_UP, Value
from harness.project.settings import load
from harness.project.setup_plan import SetupPlan, add_variable, draft, plan
from tests.unit.project.trees import DJANGO, FASTAPI, FLASK, PLAIN, made

TEST = "tests/test_harness_smoke.py"


def planned(root: Path) -> SetupPlan:
    project = discover(root)
    candidate = project.candidates[0]
    return plan(project, candidate, draft(project, candidate))


def written(root: Path) -> list[str]:
    """Write what is planned, and return the names of the files."""
    changes = planned(root).changes
    for change in changes:
        change.write()
    return [change.path.relative_to(root).as_posix() for change in changes]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("files", [PLAIN, DJANGO, FLASK, FASTAPI])
def test_a_second_time_changes_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    made(tmp_path, files)
    assert len(written(tmp_path)) == 3
    before = contents(tmp_path)
    again = planned(tmp_path)
    assert again.changes == ()
    assert len(again.kept) == 2
    assert written(tmp_path) == []
    assert contents(tmp_path) == before


@pytest.mark.parametrize("files", [PLAIN, DJANGO, FLASK, FASTAPI])
def test_nothing_that_was_there_is_changed(tmp_path: Path, files: dict[str, str]) -> None:
    made(tmp_path, {".gitignore": "*.pyc\n", **files})
    before = contents(tmp_path)
    written(tmp_path)
    after = contents(tmp_path)
    assert all(after[name].startswith(content) for name, content in before.items())
    assert {name for name in before if after[name] != before[name]} <= {"pyproject.toml", ".gitignore"}


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    before = contents(tmp_path)
    assert planned(tmp_path).writes_settings
    assert contents(tmp_path) == before


def test_the_changes_are_shown_as_unified_diffs(tmp_path: Path) -> None:
    made(tmp_path, {**PLAIN, "pyproject.toml": '[project]\nname = "x"', ".gitignore": "a\r\n"})
    first, _, last = planned(tmp_path).changes
    assert (
        first.diff(tmp_path)
        == """\
--- a/pyproject.toml
+++ b/pyproject.toml
@@ -1,2 +1,6 @@
 [project]
-name = "x"
\\ No newline at end of file
+name = "x"
+
+[tool.harness]
+# Written by `harness init`.
+app = "shop.app"
"""
    )
    assert last.diff(tmp_path) == "--- a/.gitignore\n+++ b/.gitignore\n@@ -1 +1,2 @@\n a\n+.harness/\n"


def test_the_settings_of_each_kind_of_project_are_toml(tmp_path: Path) -> None:
    made(tmp_path / "django", {f"backend/{name}": content for name, content in DJANGO.items()})
    written(tmp_path / "django")
    assert tomllib.loads((tmp_path / "django" / "harness.toml").read_text()) == {
        "app": "config.celery",
        "folder": "backend",
        "prepare": ["python manage.py migrate --noinput"],
        "writable": True,
        "env": {"DJANGO_SECRET_KEY": MADE_UP, "EMAIL_HOST": "{mailbox.host}", "EMAIL_PORT": "{mailbox.port}"},
    }
    written(made(tmp_path / "flask", FLASK))
    assert tomllib.loads((tmp_path / "flask" / "pyproject.toml").read_text())["tool"]["harness"] == {
        "app": "blog.make_celery:celery_app",
        "pythonpath": ["src"],
    }
    command = "worker: celery -A app.worker.celery_app:celery_app worker -c 4 -Q mails,images\n"
    written(made(tmp_path / "fastapi", {**FASTAPI, "Procfile": command}))
    assert tomllib.loads((tmp_path / "fastapi" / "harness.toml").read_text()) == {
        "app": "app.worker.celery_app:celery_app",
        "options": ["--concurrency=4", "--loglevel=info"],
        "queues": ["celery", "images", "mails"],
        "env": {"BROKER_URL": "{broker.url}"},
    }


TWO_WORKERS = """
services:
  mails:
    command: celery -A shop.app worker -Q mails -c 4 -X reports,mails
  reports:
    command: celery -A shop.app worker -Q reports -c 1
  migrate:
    command: python -m shop.migrate
"""


def test_of_two_workers_all_queues_are_consumed_and_the_options_of_the_other_are_said(tmp_path: Path) -> None:
    written(made(tmp_path, {**PLAIN, "compose.yaml": TWO_WORKERS, "shop/migrate.py": ""}))
    text = (tmp_path / "harness.toml").read_text()
    assert tomllib.loads(text) == {
        "app": "shop.app",
        # Nobody else consumes what the first worker leaves to the second.
        "options": ["--concurrency=4", "--loglevel=info"],
        "queues": ["celery", "mails", "reports"],
        "prepare": ["python -m shop.migrate"],
    }
    assert text.splitlines()[2] == (
        "# compose.yaml: service reports has --concurrency=1; a stack's workers are all alike, and have those of "
        "compose.yaml: service mails."
    )


def test_what_a_worker_excludes_and_no_other_consumes_stays_excluded(tmp_path: Path) -> None:
    written(made(tmp_path, {**PLAIN, "Procfile": "worker: celery -A shop.app worker -X reports\n"}))
    said = tomllib.loads((tmp_path / "harness.toml").read_text())
    assert said["options"] == ["--exclude-queues=reports", "--loglevel=info"]


def test_a_folder_that_the_app_imports_from_beside_its_own_is_on_the_path(tmp_path: Path) -> None:
    files = {name.replace("src/blog/make_celery.py", "make_celery.py"): content for name, content in FLASK.items()}
    written(made(tmp_path, files))
    assert tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["harness"] == {
        "app": "make_celery:celery_app",
        "pythonpath": ["src"],
    }


def test_a_folder_src_that_nobody_imports_from_is_not_on_the_path(tmp_path: Path) -> None:
    written(made(tmp_path, {**PLAIN, "src/other.py": ""}))
    assert "pythonpath" not in (tmp_path / "harness.toml").read_text()


def test_a_value_of_the_project_with_braces_is_no_template(tmp_path: Path) -> None:
    code = PLAIN["shop/app.py"] + "import os\nos.environ['SHOP_JSON']\n"
    made(tmp_path, {**PLAIN, "shop/app.py": code, ".env.example": 'SHOP_JSON=\'{"a": "\x7f\u00e9"}\'\n'})
    written(tmp_path)
    said = tomllib.loads((tmp_path / "harness.toml").read_text(encoding="utf-8"))
    assert said["env"] == {"SHOP_JSON": '{{"a": "\x7f\u00e9"}}'}


@pytest.mark.parametrize("settings", ['[tool.harness]\napp = "mine"\n', 'tool = {harness = {app = "mine"}}\n'])
def test_settings_that_are_there_are_left_as_they_are(tmp_path: Path, settings: str) -> None:
    made(tmp_path, {**PLAIN, "pyproject.toml": settings})
    made_plan = planned(tmp_path)
    assert made_plan.kept == ("pyproject.toml has settings for the harness: they are left as they are.",)
    assert not made_plan.writes_settings
    assert written(tmp_path) == [TEST, ".gitignore"]
    assert (tmp_path / "pyproject.toml").read_text() == settings


def test_a_pyproject_to_which_no_table_can_be_added_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path, {**PLAIN, "pyproject.toml": "tool = {other = {a = 1}}\n"})
    assert written(tmp_path) == ["harness.toml", TEST, ".gitignore"]


def test_a_pyproject_that_is_no_toml_is_one_clear_error_and_nothing_is_written(tmp_path: Path) -> None:
    made(tmp_path, {**PLAIN, "pyproject.toml": "[project\n"})
    with pytest.raises(UsageError, match=r"pyproject\.toml is no TOML: "):
        planned(tmp_path)


@pytest.mark.parametrize("ends", [b"\r\n", b"\n"])
def test_a_file_keeps_its_ends_of_lines(tmp_path: Path, ends: bytes) -> None:
    before = {"pyproject.toml": b"[project]" + ends, ".gitignore": b"a" + ends}
    written(made(tmp_path, {**PLAIN, **before}))
    for name in before:
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        assert len(lines) > 1
        assert all(line.endswith(ends) and line.count(b"\r") == ends.count(b"\r") for line in lines)


@pytest.mark.parametrize("line", [".harness/", ".harness", "/.harness/"])
def test_a_gitignore_that_has_the_folder_is_left_as_it_is(tmp_path: Path, line: str) -> None:
    made(tmp_path, {**PLAIN, ".gitignore": f"{line}\n"})
    assert ".gitignore" not in written(tmp_path)


def test_a_gitignore_that_has_something_else_gets_the_line(tmp_path: Path) -> None:
    made(tmp_path, {**PLAIN, ".gitignore": "# .harness/\n.harness/runs"})
    assert ".gitignore" in written(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "# .harness/\n.harness/runs\n.harness/\n"


# -------------------------------------------------------------------------------------------------------- the test


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({}, TEST),
        ({"test/a.py": ""}, "test/test_harness_smoke.py"),
        ({"pytest.ini": "[pytest]\ntestpaths = checks other\n", "checks/a.py": ""}, "checks/test_harness_smoke.py"),
        ({"pytest.ini": "[pytest]\ntestpaths = checks\n"}, TEST),
        (
            {"pyproject.toml": "[tool.pytest.ini_options]\npython_files = ['*_test.py']\n"},
            "tests/harness_smoke_test.py",
        ),
        ({"setup.cfg": "[tool:pytest]\ntestpaths = spec\n", "spec/a.py": ""}, "spec/test_harness_smoke.py"),
        ({"setup.cfg": "[pytest]\ntestpaths = spec\n", "spec/a.py": ""}, TEST),
    ],
)
def test_the_test_lies_where_the_projects_pytest_finds_it(tmp_path: Path, files: dict[str, str], path: str) -> None:
    made(tmp_path, {**PLAIN, **files})
    assert path in written(tmp_path)
    compile((tmp_path / path).read_text(), path, "exec")


def test_a_test_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    made(tmp_path, {**PLAIN, TEST: "mine = True\n"})
    assert written(tmp_path) == ["harness.toml", ".gitignore"]
    assert (tmp_path / TEST).read_text() == "mine = True\n"


def test_a_harmless_task_is_sent_and_no_other(tmp_path: Path) -> None:
    written(made(tmp_path / "django", DJANGO))
    text = (tmp_path / "django" / TEST).read_text()
    assert text.count('stack.producer.send("config.celery.debug_task")\n') == 2
    written(made(tmp_path / "plain", PLAIN))
    text = (tmp_path / "plain" / TEST).read_text()
    assert "\n    stack.producer.send" not in text


MAILS = """
from celery import Celery

app = Celery("a")

@app.task
def count(path):
    return 1

@app.task(bind=True)
def notify(self, to_address, album, *, size, width=3):
    return None
"""


def test_a_comment_shows_how_to_send_a_task_of_the_app(tmp_path: Path) -> None:
    written(made(tmp_path / "mails", {"a.py": MAILS}))
    text = (tmp_path / "mails" / TEST).read_text()
    assert '    #     stack.producer.send("a.notify", ["zoe@example.com", <album>], {"size": <size>})\n' in text
    assert "#     def test_notify_survives_a_killed_worker(stack, mailbox):\n" in text
    assert '("a.notify", ["zoe@example.com", <album>], {"size": <size>}, expect=expect)\n' in text
    assert "shop.welcome" not in text


def test_a_comment_about_mails_shows_another_app_if_this_one_sends_none(tmp_path: Path) -> None:
    written(made(tmp_path, {"a.py": MAILS.replace("to_address", "user")}))
    text = (tmp_path / TEST).read_text()
    assert '    #     stack.producer.send("a.count", [<path>])\n' in text
    assert '("shop.welcome", ["zoe@example.com"], expect=expect)\n' in text


@pytest.mark.parametrize(
    "body",
    ["os.remove('x')", "shop.objects.all()", "import os", "open('x')", "raise ValueError", "self.retry()", "clear()"],
)
def test_a_task_that_may_do_something_is_not_sent(tmp_path: Path, body: str) -> None:
    made(
        tmp_path,
        {"a.py": f"import os\nfrom celery import Celery\napp = Celery('a')\n@app.task\ndef work():\n    {body}\n"},
    )
    written(tmp_path)
    assert "\n    stack.producer.send" not in (tmp_path / TEST).read_text()


@pytest.mark.parametrize("body", ["pass", "return 'pong'", "print(f'{1 + 1}')", "logger.info('x')"])
def test_a_task_that_only_says_something_is_sent(tmp_path: Path, body: str) -> None:
    made(tmp_path, {"a.py": f"from celery import Celery\napp = Celery('a')\n@app.task\ndef work():\n    {body}\n"})
    written(tmp_path)
    assert '\n    stack.producer.send("a.work")' in (tmp_path / TEST).read_text()


def test_a_task_of_a_module_that_does_not_speak_of_celery_is_found(tmp_path: Path) -> None:
    written(made(tmp_path, {**PLAIN, "shop/more.py": "from shop.app import app\n@app.task\ndef ping():\n    pass\n"}))
    assert 'stack.producer.send("shop.more.ping")' in (tmp_path / TEST).read_text()


@pytest.mark.parametrize(
    ("setting", "sent"),
    [
        ("app.conf.task_default_queue = 'shop'", '    stack.producer.send("a.work", queue="shop")'),
        ("app.conf.update(task_default_queue='shop')", '    stack.producer.send("a.work", queue="shop")'),
        ("app.conf.task_default_queue = name()", None),
        ("app.conf.task_queues = [Queue(name())]", None),
    ],
)
def test_a_task_is_sent_to_a_queue_that_is_certainly_consumed(tmp_path: Path, setting: str, sent: str | None) -> None:
    code = f"from celery import Celery\napp = Celery('a')\n{setting}\n@app.task\ndef work():\n    pass\n"
    written(made(tmp_path, {"a.py": code}))
    lines = (tmp_path / TEST).read_text().splitlines()
    assert [line for line in lines if line.startswith("    stack.producer.send")] == (
        [] if sent is None else [sent] * 2
    )


# ---------------------------------------------------------------------------------------------------- other details


def test_a_link_that_leads_out_of_the_project_is_mounted_where_it_leads_to(tmp_path: Path) -> None:
    made(tmp_path, {"common/__init__.py": ""})
    made(tmp_path / "project", PLAIN)
    (tmp_path / "project" / "common").symlink_to("../common")
    written(tmp_path / "project")
    said = tomllib.loads((tmp_path / "project" / "harness.toml").read_text())
    assert said["mounts"] == ["../common:/common"]


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("name", ["harness.toml", "pyproject.toml"])
def test_a_variable_is_added_to_settings_that_were_just_written(tmp_path: Path, name: str, *, has_table: bool) -> None:
    code = PLAIN["shop/app.py"] + ("import os\nos.environ['SECRET']\n" if has_table else "")
    made(tmp_path, {**PLAIN, "shop/app.py": code, **({"pyproject.toml": ""} if name == "pyproject.toml" else {})})
    written(tmp_path)
    add_variable(tmp_path / name, Value(name="MORE", value="1", origin=".env.example"))
    assert load(tmp_path).env == {**({"SECRET": MADE_UP} if has_table else {}), "MORE": "1"}


def test_an_empty_settings_file_gets_the_settings(tmp_path: Path) -> None:
    assert written(made(tmp_path, {**PLAIN, "harness.toml": "# mine\n"})) == ["harness.toml", TEST, ".gitignore"]
    assert (tmp_path / "harness.toml").read_text().startswith("# mine\n# Written by")
    assert load(tmp_path).app == "shop.app"


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    first, *_ = planned(tmp_path).changes
    first.path.write_text("mine\n")
    with pytest.raises(UsageError, match=r"harness\.toml cannot be written: File exists"):
        first.write()
    assert first.path.read_text() == "mine\n"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    changes = planned(tmp_path).changes
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        changes[0].write()
