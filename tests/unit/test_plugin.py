"""The pytest door, by pytest runs within this one. No engine answers in them."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import pytest
from rich.console import Console

import harness.plugin  # noqa: F401 - imported here, or each inner run would import everything anew.
from harness.audit.audit import Audit
from harness.errors import EngineError
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.verdict import Fate, Finding, Verdict
from harness.report import terminal
from harness.stack.stack import Stack

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest on a test file, with this plugin and without other installed ones."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # In CI pytest does not shorten its summary, which then repeats what the tests count.
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)

    def inner(code: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(code)
        return pytester.runpytest_inprocess("-p", "harness.plugin", "--strict-markers", *options)

    return inner


@pytest.fixture
def _socket_collected() -> Iterator[None]:
    yield
    gc.collect()


STACKS = """
    import pytest

    @pytest.mark.stack(app="shop")
    def test_first(stack): pass

    @pytest.mark.stack("shop", workers=2)
    def test_second(results, mailbox): pass

    def test_without(): pass
"""


def test_the_marker_is_registered_and_explained(run: Run) -> None:
    ended = run("", "--markers")
    ended.stdout.fnmatch_lines(["@pytest.mark.stack(app=None, app_folder=None,*): what the `stack` fixture*"])


@pytest.mark.usefixtures("_socket_collected")
def test_without_an_engine_every_test_that_needs_one_gets_one_paragraph(run: Run, pytester: pytest.Pytester) -> None:
    ended = run(STACKS)
    ended.assert_outcomes(errors=2, passed=1)
    said = [line for line in ended.outlines if line.startswith("No container engine answers")]
    assert len(said) == 2
    assert "at unix:///nonexistent (from DOCKER_HOST)" in said[0]
    ended.stdout.no_fnmatch_line("*Traceback*")
    ended.stdout.no_re_match_line(r".*\.py:\d+: ")
    # Nothing ran, so there is nothing to account for.
    ended.stdout.no_fnmatch_line("*celery harness*")
    assert not (pytester.path / ".harness").exists()


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("", "*::test_it uses `stack`, and no app is named: *@pytest.mark.stack(app=*tool.harness*"),
        ("@pytest.mark.stack", "*::test_it uses `stack`, and no app is named: *@pytest.mark.stack(app=*tool.harness*"),
        (
            "@pytest.mark.stack(app='shop', worker=2)",
            "*unexpected keyword argument 'worker'*There is stack(app=*",
        ),
        ("@pytest.mark.stack(app='shop', workers=-1)", "workers of the marker is -1, a whole number; it should be *"),
        ("@pytest.mark.stack(app='shop', options='-c 4')", "options of the marker is '-c 4', a text; it should be *"),
        ("@pytest.mark.stack(app='shop', env={'A': 1})", "env.A of the marker is 1, a whole number; it should be a *"),
        ("@pytest.mark.stack(app='shop', app_folder='/nowhere')", "/nowhere is no folder*"),
    ],
    ids=["none", "no app", "unknown argument", "workers", "options", "env", "folder"],
)
def test_a_wrong_marker_is_told_before_anything_is_started(run: Run, marker: str, said: str) -> None:
    ended = run(f"import pytest\n\n{marker}\ndef test_it(stack): pass\n")
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines([said])
    ended.stdout.no_fnmatch_line("*No container engine*")
    ended.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("name", ["test_it[early]", "test_it[/tmp]"])
def test_the_accounting_names_a_parametrized_test_as_it_is(name: str) -> None:
    audit = Audit(
        name=name,
        entries=0,
        fates=dict.fromkeys(Fate, 0),
        findings=(),
        e2e_ms={},
        memory_mb={},
        workers={},
        witnesses={},
    )
    console = Console(width=200, emoji=False)
    with console.capture() as captured:
        console.print(terminal.ledger([(name, audit)]), terminal.accounting(audit))
    assert captured.get().count(name) == 2


@pytest.mark.parametrize(
    ("code", "said"), [("refused", "3 ok, 2 failed as expected "), ("failed-unexpectedly", "3 ok, 2 failed ")]
)
def test_the_accounting_says_whether_failures_were_expected(code: str, said: str) -> None:
    audit = Audit(
        name="a run",
        entries=5,
        fates={**dict.fromkeys(Fate, 0), Fate.OK: 3, Fate.FAILED: 2},
        findings=(Finding(code=code, verdict=Verdict.PASS, count=1, text="."),),
        e2e_ms={},
        memory_mb={},
        workers={},
        witnesses={},
    )
    console = Console(width=200, emoji=False)
    with console.capture() as captured:
        console.print(terminal.ledger([("a run", audit)]))
    (row,) = [line for line in captured.get().splitlines() if "a run" in line]
    assert said in f"{row} "


# ----------------------------------------------------------------------------------- when something is wrong


class Pretended(Stack):
    """A stack without nodes: what is sent is only written down, and each settling is counted."""

    settled = 0
    limits: ClassVar[list[tuple[float, float | None]]] = []
    up = False

    def __enter__(self) -> Self:
        self.up = True
        return self

    def close(self) -> None:
        self.up = False

    def pretend_to_send(self, *tasks: str, node: str = "producer") -> None:
        journal = Writer(self.folder.journal, node=node, role=node)
        for task in tasks:
            journal.write(Kind.INTENDED, task=task)
        journal.close()

    def settle(self, timeout_s: float = 60.0, **options: Any) -> Audit:
        assert self.up
        self.limits.append((timeout_s, options.get("limit_s")))
        self.accounted = self.ledger.sent_to_app
        type(self).settled += 1
        lost = Finding(code="lost", verdict=Verdict.FAIL, count=1, text="a task called lost")
        self.audited = Audit(
            name="pretended",
            entries=self.ledger.sent,
            fates=dict.fromkeys(Fate, 0),
            findings=(lost,) if "lost" in self.ledger.open() else (),
            e2e_ms={},
            memory_mb={},
            workers={},
            witnesses={},
        )
        return self.audited

    def logs(self, lines: int = 20) -> Iterator[tuple[str, str]]:
        del lines
        assert self.up
        yield "worker-1", "the last words"


class Mute(Pretended):
    """Its engine went away in the meantime."""

    def logs(self, lines: int = 20) -> Iterator[tuple[str, str]]:
        yield from super().logs(lines)
        raise EngineError("The engine did not answer.")


class Hostile(Pretended):
    """What it says would clear the screen."""

    def logs(self, lines: int = 20) -> Iterator[tuple[str, str]]:
        del lines
        yield "worker-1", "one\n\x1b[2J[/red]"

    def settle(self, timeout_s: float = 60.0, **_: Any) -> Audit:
        found = Finding(code="lost", verdict=Verdict.FAIL, count=1, text="\x1b[2Jlost", tasks=("\x1b[2Jid",))
        self.audited = replace(super().settle(timeout_s), findings=(found,))
        return self.audited


class Unsettling(Pretended):
    """It cannot be settled."""

    def settle(self, timeout_s: float = 60.0, **_: Any) -> Audit:
        raise EngineError(f"Nothing came to rest within {timeout_s:g} s.")


class Clinging(Pretended):
    """It cannot be taken down."""

    def close(self) -> None:
        raise EngineError("worker-1 clings to life.")


@pytest.fixture
def run_pretended(run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest on a file of tests, whose stacks are of a given kind."""
    pytester.makeconftest("import pytest\n\n@pytest.fixture(scope='session')\ndef _harness_session(): return None\n")

    def inner(kind: type[Pretended], code: str) -> pytest.RunResult:
        kind.settled = 0
        monkeypatch.setattr("harness.plugin.Stack", kind)
        return run(f"import pytest\npytestmark = pytest.mark.stack(app='shop')\n{code}")

    return inner


# --------------------------------------------------------------------------------- with settings in the project

SETTINGS = """
[tool.harness]
app = "shop.app"
folder = "src"
workers = 2
options = ["--pool=solo"]
env = { A = "1", B = "{{1}}" }
"""
OF_SETTINGS = """
from harness.project.templates import rendered

def test_no_marker(stack):
    assert (stack.spec.app, stack.spec.app_folder, stack.spec.workers) == ("shop.app", SRC, 2)
    assert (stack.spec.options, rendered(stack.spec.env, {})) == (("--pool=solo",), {"A": "1", "B": "{1}"})

@pytest.mark.stack
def test_bare_marker(stack):
    assert (stack.spec.app, stack.spec.workers) == ("shop.app", 2)

@pytest.mark.stack("other.app", app_folder="lib", workers=1, options=["-c", "4"], env={"B": '{"b": 2}'})
def test_marker(stack):
    assert (stack.spec.app, stack.spec.app_folder.name, stack.spec.workers) == ("other.app", "lib", 1)
    assert (stack.spec.options, rendered(stack.spec.env, {})) == (("-c", "4"), {"A": "1", "B": '{"b": 2}'})
"""


@pytest.fixture
def run_in_project(run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest on tests in a project with folders and, if given, settings."""
    pytester.makeconftest("import pytest\n\n@pytest.fixture(scope='session')\ndef _harness_session(): return None\n")
    pytester.mkdir("src")
    pytester.mkdir("lib")
    monkeypatch.setattr("harness.plugin.Stack", Pretended)
    for name in ("HARNESS_APP", "HARNESS_WORKERS", "HARNESS_WORKER_IMAGE", "HARNESS_NETWORK"):
        monkeypatch.delenv(name, raising=False)

    def inner(code: str, settings: str) -> pytest.RunResult:
        pytester.makepyprojecttoml(settings)
        return run(f"import pytest\nfrom pathlib import Path\nSRC = Path(__file__).parent / 'src'\n{code}")

    return inner


def test_settings_of_the_project_stand_for_what_a_marker_leaves_out(run_in_project: Run) -> None:
    run_in_project(OF_SETTINGS, SETTINGS).assert_outcomes(passed=3)


def test_the_environment_wins_over_the_settings_and_the_marker_over_it(
    run_in_project: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_APP", "heard.app")
    monkeypatch.setenv("HARNESS_WORKERS", "3")
    code = """
def test_no_marker(stack): assert (stack.spec.app, stack.spec.workers) == ("heard.app", 3)

@pytest.mark.stack("marked.app")
def test_marker(stack): assert (stack.spec.app, stack.spec.workers) == ("marked.app", 3)
"""
    run_in_project(code, SETTINGS).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[tool.harness]\noptoins = []", "*pyproject.toml: tool.harness.optoins is no setting. Did you mean options?"),
        ("[tool.harness]\nworkers = '2'", "*tool.harness.workers is '2', a text; it should be a whole number*"),
        ("[tool.harness]\napt = ['libpq5']", "*the setting apt is for the app's own image, and nothing says*"),
        ("[tool.harness]\nworkers = 2", "*::test_it uses `stack`, and no app is named: *"),
        ("[tool.other]\napp = 'shop.app'", "*::test_it uses `stack`, and no app is named: *"),
    ],
    ids=["key", "type", "nothing to install", "no app", "another tool's"],
)
def test_wrong_settings_are_one_sentence_in_each_test_that_needs_them(
    run_in_project: Run, settings: str, said: str
) -> None:
    marker = "" if "no app" in said else "@pytest.mark.stack(app='shop')\n"
    ended = run_in_project(f"{marker}def test_it(stack): pass\n\ndef test_without(): pass", settings)
    ended.assert_outcomes(errors=1, passed=1)
    ended.stdout.fnmatch_lines([said])
    ended.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("body", "settled"),
    [
        ("pass", 0),
        ("stack.pretend_to_send('a')", 1),
        ("stack.pretend_to_send('a'); stack.settle()", 1),
        ("stack.settle(); stack.pretend_to_send('a')", 2),
        ("stack.pretend_to_send('a'); stack.settle(); stack.pretend_to_send('b')", 2),
        ("stack.pretend_to_send('a'); stack.settle(); stack.pretend_to_send('b'); assert False", 1),
        ("stack.pretend_to_send('lost'); assert not stack.settle().passed", 1),
        ("stack.pretend_to_send('a', node='worker')", 1),
        ("stack.pretend_to_send('a'); stack.settle(); stack.pretend_to_send('b', node='worker')", 1),
    ],
)
def test_a_passed_test_is_settled_unless_everything_it_sent_is_accounted_for(
    run_pretended: Run, body: str, settled: int
) -> None:
    ended = run_pretended(Pretended, f"def test_it(stack): {body}")
    wanted = {"failed": 1} if "assert False" in body else {"passed": 1}
    ended.assert_outcomes(**wanted)
    assert Pretended.settled == settled


def test_the_end_of_a_test_is_bounded_by_what_its_own_settling_left_of_its_limits(
    run_pretended: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pretended, "limits", [])
    code = """
def test_default(stack): stack.pretend_to_send('a')
def test_its_own(stack):
    stack.limits_left = stack.limits_left.__class__(timeout_s=5, limit_s=3)
    stack.pretend_to_send('a')
"""
    run_pretended(Pretended, code).assert_outcomes(passed=2)
    assert Pretended.limits == [(60, 120), (5, 3)]


def test_what_was_sent_after_settling_and_was_lost_is_an_error_that_shows_the_logs(run_pretended: Run) -> None:
    ended = run_pretended(Pretended, "def test_it(stack): stack.settle(); stack.pretend_to_send('lost')")
    ended.assert_outcomes(passed=1, errors=1)
    ended.stdout.fnmatch_lines(
        [
            "the test passed, its tasks did not.",
            "fail: 1 sent: *",
            "*lost: a task called lost",
            "--- run folder ---",
            "*/.harness/runs/*test_it*",
            "--- last log lines of worker-1 ---",
            "the last words",
        ]
    )


def test_an_assertion_on_an_audit_shows_the_verdict_and_the_report_all_of_it(run_pretended: Run) -> None:
    code = "def test_it(stack): stack.pretend_to_send('lost'); assert stack.settle().passed"
    ended = run_pretended(Pretended, code)
    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines(
        ["E *where False = fail: 1 sent: *", "*- accounting -*", "fail: 1 sent: nothing", "*lost: a task called lost"]
    )


def test_a_report_that_cannot_be_written_is_told_and_changes_no_outcome(run_pretended: Run) -> None:
    # What only pretends to be a stack leaves no run.json, of which a report could be made.
    lost = "def test_lost(stack): stack.pretend_to_send('lost')"
    code = f"def test_fails(stack): assert False\n{lost}\ndef test_ok(stack): pass"
    ended = run_pretended(Pretended, code)
    ended.assert_outcomes(passed=2, failed=1, errors=1)
    said = [line for line in ended.outlines if "could not be written; the verdict stands" in line]
    assert ["test_fails" in line for line in said] == [False, True]
    assert all("has no run.json" in line for line in said)
    ended.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_logs_that_cannot_be_read_are_told_in_the_report_and_break_nothing(run_pretended: Run) -> None:
    ended = run_pretended(Mute, "def test_it(stack): assert False\ndef test_lost(stack): stack.pretend_to_send('lost')")
    ended.assert_outcomes(passed=1, failed=1, errors=1)
    ended.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert ended.outlines.count("the last words") == 2
    assert ended.outlines.count("They could not be read: The engine did not answer.") == 2


@pytest.mark.parametrize(
    "body", ["stack.pretend_to_send('lost')", "assert stack.settle().passed, stack.audited.text()"]
)
def test_what_nodes_and_findings_say_is_shown_as_text(run_pretended: Run, body: str) -> None:
    ended = run_pretended(Hostile, f"def test_it(stack): {body}")
    said = ended.stdout.str()
    assert "\x1b" not in said
    assert r"\x1b[2J[/red]" in said
    assert r"\x1b[2Jlost (\x1b[2Jid)" in said


def test_a_settling_that_fails_is_one_paragraph_with_the_logs(run_pretended: Run) -> None:
    ended = run_pretended(Unsettling, "def test_it(stack): stack.pretend_to_send('a')")
    ended.assert_outcomes(passed=1, errors=1)
    ended.stdout.fnmatch_lines(["Nothing came to rest within 60 s.", "--- run folder ---", "*", "*", "the last words"])
    ended.stdout.no_re_match_line(r".*\.py:\d+: ")


def test_a_fixture_that_fails_after_the_stack_is_up_shows_its_logs_and_settles_nothing(run_pretended: Run) -> None:
    code = """
@pytest.fixture
def filled(stack):
    stack.pretend_to_send('lost')
    raise RuntimeError("half filled")

def test_it(filled): pass
"""
    ended = run_pretended(Pretended, code)
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines(["*RuntimeError: half filled", "*run folder*", "*last log lines of worker-1*"])
    assert Pretended.settled == 0


def test_a_stack_that_cannot_be_taken_down_is_an_error_beside_what_became_of_the_tasks(run_pretended: Run) -> None:
    ended = run_pretended(Clinging, "def test_it(stack): stack.pretend_to_send('lost')")
    ended.assert_outcomes(passed=1, errors=1)
    ended.stdout.fnmatch_lines(["the test passed, its tasks did not.", "worker-1 clings to life."])
    ended.stdout.no_fnmatch_line("*Traceback*")


def test_a_session_has_one_summary_on_the_page_of_a_github_step(
    run_pretended: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    tests = "def test_good(stack): stack.pretend_to_send('a')\ndef test_bad(stack): stack.pretend_to_send('lost')"
    assert run_pretended(Pretended, tests).ret == 1
    text = page.read_text()
    assert text.startswith("### ❌ 2 runs fails")
    assert text.count("### ❌ 2 runs") == 1
    assert "test\\_good" in text


def test_a_summary_that_cannot_be_written_is_told_and_changes_nothing(
    run_pretended: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path))
    ended = run_pretended(Pretended, "def test_good(stack): stack.pretend_to_send('a')")
    assert ended.ret == 0
    ended.stderr.fnmatch_lines(["harness: the summary of this step cannot be written to *"])
