"""The pytest door, by pytest runs within this one. No engine answers in them."""

import gc
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

import harness.plugin  # noqa: F401 - imported here, or each inner run would import everything anew.
from harness.evidence import report
from harness.evidence.audit import Audit
from harness.evidence.records import Fate

pytest_plugins = ["pytester"]

# The library of the engine leaves a socket that found nobody to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on a test file, with this plugin and none that happens to be installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")

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
    ended.stdout.fnmatch_lines(["@pytest.mark.stack(app, app_folder=None, workers=1,*): what the `stack` fixture*"])


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
        ("", "*::test_it uses `stack` without a marker: @pytest.mark.stack(app=...)."),
        ("@pytest.mark.stack", "*cannot be: missing 1 required positional argument: 'app'. There is stack(app, *"),
        ("@pytest.mark.stack(app='shop', worker=2)", "*unexpected keyword argument 'worker'*There is stack(app, *"),
        ("@pytest.mark.stack(app='shop', workers=-1)", "-1 workers cannot be started*"),
        ("@pytest.mark.stack(app='shop', app_folder='/nowhere')", "/nowhere is no folder*"),
    ],
    ids=["none", "no app", "unknown argument", "workers", "folder"],
)
def test_a_wrong_marker_is_told_before_anything_is_started(run: Run, marker: str, said: str) -> None:
    ended = run(f"import pytest\n\n{marker}\ndef test_it(stack): pass\n")
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines([said])
    ended.stdout.no_fnmatch_line("*No container engine*")
    ended.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("name", ["test_it[early]", "test_it[/tmp]"])
def test_the_accounting_names_a_parametrized_test_as_it_is(name: str) -> None:
    audit = Audit(name=name, entries=0, fates=dict.fromkeys(Fate, 0), findings=(), e2e_ms={}, workers={}, witnesses={})
    console = Console(width=200, emoji=False)
    with console.capture() as captured:
        console.print(report.ledger([(name, audit)]), report.accounting(audit))
    assert captured.get().count(name) == 2
