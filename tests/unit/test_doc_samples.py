"""Each sample of the documentation is one that works: commands can be given, Python uses what exists, files are read.

A fenced block is checked by its language. A block without a rule fails. `RUN_FOR_REAL` lists the samples that other
tests run, and by which test.
"""

import ast
import io
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from harness.errors import HarnessError
from harness.project import env_file
from harness.project.settings import load
from tests.doc_samples.blocks import PAGES, ROOT, Block, blocks, blocks_of, inline, inline_of
from tests.doc_samples.commands import Commands, given, unknown_to_pytest, words_of, wrong_for_harness, wrong_for_locust
from tests.doc_samples.python_names import API, Checker

INSTRUCTIONS = {"FROM", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT"}
"""What a line of a sample Dockerfile begins with."""
RUN_FOR_REAL = (
    ("README.md", "sh", "nox -s integration", ".ci/run", "for session in tests integration"),
    (
        "README.md",
        "console",
        "harness init",
        "tests/examples/test_examples.py",
        "test_an_app_is_set_up_and_tested_as_it_is",
    ),
    ("README.md", "python", "test_welcomes_survive", "tests/package/test_package.py", "test_the_examples_pass"),
    (
        "README.md",
        "text",
        "AssertionError",
        "tests/package/test_package.py",
        "test_without_its_setting_the_example_loses",
    ),
    ("docs/tutorial.md", "python", "test_welcomes_survive", "tests/package/test_package.py", "test_the_examples_pass"),
    ("docs/tutorial.md", "console", "harness init", "tests/examples/test_examples.py", "test_an_app_is_set_up"),
    ("examples/README.md", "console", "pytest test_shop.py", "tests/package/test_package.py", "test_the_examples_pass"),
    (
        "examples/README.md",
        "console",
        "harness run shop.welcomes",
        "tests/package/test_package.py",
        "test_the_example_runs",
    ),
    ("docs/load.md", "console", "nox -s load", ".ci/run", "for session in tests integration load"),
    ("docs/web.md", "python", "add_web", "tests/docker/test_web.py", "scenarios.web"),
)
"""Samples that are run with an engine: page, language, words of the block; the file and words of what runs it."""
SAME_AS = (
    ("README.md", "test_welcomes_survive_a_killed_worker", "examples/test_shop.py"),
    ("docs/tutorial.md", "test_welcomes_survive_a_killed_worker", "examples/test_shop.py"),
    ("docs/tutorial.md", "welcome", "examples/shop/app.py"),
)
"""Functions of samples that are those of an example, which a test runs."""


def wrong_settings(text: str, folder: Path) -> list[str]:
    """Return what the harness says against settings, which are in a file of their own or in a `pyproject.toml`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [str(error)]
    name = "pyproject.toml" if "harness" in values.get("tool", {}) else "harness.toml"
    said = values["tool"]["harness"] if name == "pyproject.toml" else values
    (folder / name).write_text(text)
    (folder / ".git").mkdir(exist_ok=True)
    for path in (said.get("folder"), *said.get("pythonpath", ())):
        (folder / (path or "")).mkdir(parents=True, exist_ok=True)
    if "env_file" in said:
        (folder / said["env_file"]).touch()
    for mount in said.get("mounts", ()):
        host = folder / mount.partition(":")[0]
        host.parent.mkdir(parents=True, exist_ok=True)
        host.touch()
    try:
        load(folder)
    except HarnessError as error:
        return [str(error)]
    return []


def wrong_data(block: Block) -> list[str]:
    """Return what is wrong with JSON or YAML."""
    try:
        if block.language == "yaml":
            list(yaml.safe_load_all(io.StringIO(block.text)))
        else:
            json.loads(block.text)
    except (ValueError, yaml.YAMLError) as error:
        return [str(error)]
    return []


def wrong_dockerfile(block: Block) -> list[str]:
    """Return the lines that are no instructions."""
    return [f"{line!r} is no instruction" for line in block.text.splitlines() if line.split(" ")[0] not in INSTRUCTIONS]


def wrong_output(block: Block) -> list[str]:
    """Return what is wrong with what a program prints: whoever gives a command there keeps it from being checked."""
    return ["a command is in a block of output"] if re.search(r"^\$ ", block.text, re.MULTILINE) else []


def wrong_environment(text: str, folder: Path) -> list[str]:
    """Return what the harness says against a file of variables."""
    path = folder / "sample.env"
    path.write_text(text)
    try:
        return [] if env_file.read(path) else ["it has no variable"]
    except HarnessError as error:
        return [str(error)]


def is_environment(text: str) -> bool:
    """Return whether each line is a variable, a comment, or empty."""
    return all(re.match(r"#|$|(export )?[A-Z_]+=", line) for line in text.splitlines())


class Samples:
    """Checks blocks, page by page."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        """Begin."""
        self.commands = commands
        self._folder = folder
        self._pages: dict[str, Checker] = {}
        self._count = 0
        self._rules: Mapping[str, Callable[[Block], list[str]]] = {
            "console": self._wrong_shell,
            "dockerfile": wrong_dockerfile,
            "json": wrong_data,
            "python": self._wrong_python,
            "sh": self._wrong_shell,
            "text": wrong_output,
            "toml": self._wrong_settings,
            "yaml": wrong_data,
        }

    def wrong(self, block: Block) -> list[str]:
        """Return what is wrong with a block, each with its place."""
        return [one if one.startswith(str(block)) else f"{block}: {one}" for one in self._wrong(block)]

    def _wrong(self, block: Block) -> list[str]:
        rule = self._rules.get(block.language)
        return [f"no rule is for a block of {block.language!r}"] if rule is None else rule(block)

    def _wrong_python(self, block: Block) -> list[str]:
        # A page goes on with what its earlier samples have bound.
        return self._pages.setdefault(block.page, Checker()).check(block.text)

    def _wrong_shell(self, block: Block) -> list[str]:
        if block.language == "sh" and is_environment(block.text):
            return wrong_environment(block.text, self._new_folder())
        return [one for line in given(block) for one in self.commands.wrong(line, str(block))]

    def _wrong_settings(self, block: Block) -> list[str]:
        return wrong_settings(block.text, self._new_folder())

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder


@pytest.fixture
def samples(pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Samples]:
    # Scenarios and the example's app are found from here. Other tests have packages of the same name.
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    for name in modules_of("shop"):
        monkeypatch.delitem(sys.modules, name)
    yield Samples(Commands(unknown_to_pytest(pytestconfig)), tmp_path)
    for name in modules_of("shop"):
        del sys.modules[name]


def modules_of(package: str) -> list[str]:
    """Return the names of a package's modules that are imported, its own included."""
    return [name for name in sys.modules if name.partition(".")[0] == package]


# ------------------------------------------------------------------------------------------------ the documentation


def test_each_block_of_the_documentation_works(samples: Samples) -> None:
    found = blocks()
    assert len(found) > 60
    assert [one for block in found for one in samples.wrong(block)] == []
    assert len(samples.commands.for_locust) > 5
    assert wrong_for_locust(samples.commands.for_locust) == []


@pytest.mark.usefixtures("samples")
def test_each_command_and_call_within_a_sentence_works() -> None:
    wrong = [one for page, code in inline() for one in wrong_inline(code, page)]
    assert wrong == []


def wrong_inline(code: str, page: str) -> Iterator[str]:
    """Yield what is wrong with code within a sentence: a command of the harness, its marker, or a call of its API."""
    # What follows `…` or a placeholder in capitals is left to the reader.
    if code.startswith("harness ") and not re.search(r"…|\[|: ", code):
        words = words_of(code)[0]
        yield from (f"{page}: {code}: {one}" for one in wrong_for_harness(words[1:], in_sentence=True))
    elif re.match(rf"(@pytest\.mark\.stack|{'|'.join(API)})\(.*\)$", code) and "…" not in code:
        yield from (f"{page}: {code}: {one}" for one in Checker().check(code.removeprefix("@")) if "bound" not in one)


def is_run(page: str, language: str, words: str, file: str, by: str) -> bool:
    """Return whether a page has such a block, and the file has what runs it."""
    found = [block for block in blocks() if (block.page, block.language) == (page, language) and words in block.text]
    return bool(found) and by in (ROOT / file).read_text()


@pytest.mark.parametrize("entry", RUN_FOR_REAL, ids=lambda entry: f"{entry[0]}: {entry[2]}")
def test_the_list_of_samples_that_are_run_is_true(entry: tuple[str, str, str, str, str]) -> None:
    assert is_run(*entry)


@pytest.mark.parametrize(
    "entry",
    [
        ("README.md", "sh", "nox -s gone", ".ci/run", "for session in tests"),
        ("README.md", "toml", "nox -s integration", ".ci/run", "for session in tests"),
        ("README.md", "sh", "nox -s integration", ".ci/run", "for session in gone"),
    ],
)
def test_a_sample_that_nothing_runs_is_noticed(entry: tuple[str, str, str, str, str]) -> None:
    assert not is_run(*entry)


def function(text: str, name: str) -> str | None:
    """Return a function's code without what an example adds: annotations and docstrings."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
            return ast.unparse(node)
    return None


@pytest.mark.parametrize(("page", "name", "example"), SAME_AS)
def test_a_sample_is_the_example_that_is_run(page: str, name: str, example: str) -> None:
    samples = [function(block.text, name) for block in blocks() if block.page == page and block.language == "python"]
    assert function((ROOT / example).read_text(), name) in [one for one in samples if one]


# ----------------------------------------------------------------------------------------------- negative controls


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("python", "def f(:\n", "invalid syntax"),
        ("python", "from harness import Expects\n", "harness has no Expects"),
        ("python", "import harness.nowhere\n", "No module named"),
        ("python", "from not_installed import x\n", "no module is named not_installed"),
        ("python", "nobody.said()\n", "nobody is nowhere bound"),
        ("python", "def test(stack):\n    stack.setle()\n", "Stack has no setle"),
        ("python", "def test(stack):\n    audit = stack.settle()\n    assert audit.pased\n", "Audit has no pased"),
        ("python", "def test(stack):\n    stack.workers[0].kil()\n", "Worker has no kil"),
        (
            "python",
            "def test(stack):\n    stack.producer.send('a', expects=1)\n",
            "unexpected keyword argument 'expects'",
        ),
        (
            "python",
            "def test(stack):\n    with stack.hold('a', Moment.STARTED) as hold:\n        hold.lt_go()\n",
            "Hold has no lt_go",
        ),
        ("python", "Expect(resul=1)\n", "unexpected keyword argument 'resul'"),
        ("python", "Moment.GONE\n", "Moment has no GONE"),
        ("python", "@pytest.mark.stack(queue=1)\ndef test(stack): ...\n", "the marker stack takes no queue"),
        ("toml", "[tool.harness]\noptoins = []\n", "Did you mean options?"),
        ("toml", 'app = "shop"\nworkers = "two"\n', "it should be a whole number"),
        ("toml", "app = \n", "Invalid value"),
        ("console", "$ harness runs --lst 5\n", "No such option"),
        ("console", "$ harness nowhere\n", "No such command"),
        ("console", "$ harness run\n", "Missing argument"),
        ("console", "$ harness audit a b\n", "unexpected extra argument"),
        ("console", "$ harness send --count x shop.welcome\n", "Invalid value"),
        ("console", "$ nox -s lints\n", "there is no session lints"),
        ("console", "$ pytest --no-such\n", "pytest has no option --no-such"),
        ("console", "$ pytest -p harness.nowhere\n", "there is no plugin harness.nowhere"),
        ("console", "$ locust -f gone.py\n", "there is no locustfile gone.py"),
        ("console", "$ locust -f scenarios/load.py Emailz\n", "has no Emailz"),
        ("console", "$ python -m pip install '/path/to/celery-harness[gone]'\n", "there is no extra gone"),
        ("console", "$ HARNESS_GONE=1 harness doctor\n", "the harness reads no variable HARNESS_GONE"),
        ("console", "$ unheard-of\n", "nobody knows the program"),
        ("sh", "harness doctr\n", "No such command"),
        ("sh", "A=1\nB='\n", "line 2"),
        ("yaml", "a: [\n", "expected"),
        ("json", "{'a': 1}\n", "Expecting property name"),
        ("dockerfile", "FORM python\n", "is no instruction"),
        ("text", "$ harness runs\n", "a command is in a block of output"),
        ("", "anything\n", "no rule is for a block of ''"),
        ("ruby", "puts 1\n", "no rule is for a block of 'ruby'"),
    ],
)
def test_a_sample_that_does_not_work_is_noticed(samples: Samples, language: str, text: str, said: str) -> None:
    wrong = samples.wrong(Block(page="page.md", line=1, language=language, text=text))
    assert len(wrong) == 1
    assert wrong[0].startswith("page.md:1: ")
    assert said in wrong[0]


def test_an_option_that_locust_does_not_take_is_noticed() -> None:
    lines = [
        ("right", ["-f", "scenarios/load.py", "--headless", "--rate", "20", "-t", "60s"]),
        ("unknown", ["-f", "scenarios/load.py", "--rte", "20"]),
        ("contradiction", ["-f", "scenarios/load.py", "--results", "sqlite:///a"]),
    ]
    unknown, contradiction = wrong_for_locust(lines)
    assert "--rte" in unknown
    assert contradiction.startswith("contradiction: ")
    assert "--broker-url" in contradiction


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("harness runs --lst 5", "No such option"),
        ('@pytest.mark.stack(queues=["reports"])', "the marker stack takes no queues"),
        ('Kill("worker", sig=9)', "unexpected keyword argument 'sig'"),
    ],
)
def test_code_within_a_sentence_that_does_not_work_is_noticed(code: str, said: str) -> None:
    (wrong,) = wrong_inline(code, "page.md")
    assert said in wrong


def test_what_an_example_does_not_do_is_not_the_same() -> None:
    assert function("def f(a: int) -> int:\n    'Doc.'\n    return a\n", "f") == function(
        "def f(a):\n    return a\n", "f"
    )
    assert function("def f(a):\n    return a\n", "f") != function("def f(a):\n    return 1\n", "f")


def test_blocks_and_code_are_found() -> None:
    text = "A `harness\nruns` and ``a ` b``.\n\n```sh\n# `no`\nnox\n```\n\n  ```\n  x\n  ```\n"
    assert list(inline_of(text)) == ["harness runs", "a ` b"]
    assert [(block.line, block.language, block.text) for block in blocks_of(text, "p")] == [
        (4, "sh", "# `no`\nnox\n"),
        (9, "", "  x\n"),
    ]
    with pytest.raises(ValueError, match=r"p:1: the block has no end"):
        list(blocks_of("```sh\nnox\n", "p"))
    assert ROOT / "docs" / "tutorial.md" in PAGES


def test_an_empty_block_of_commands_is_noticed(samples: Samples) -> None:
    with pytest.raises(ValueError, match="no line begins with"):
        samples.wrong(Block(page="page.md", line=1, language="console", text="harness runs\n"))
