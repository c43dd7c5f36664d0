"""The dialogue of `harness init`, without an engine: what is asked, shown and written, and what stops it."""

import io
import sys
from pathlib import Path

import click
import pytest

from harness.commands import init
from harness.errors import EngineError, StartError, UsageError
from harness.project.settings import load
from harness.running.first_start import FirstStart
from harness.stack.project_stack import _planned
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec
from tests.unit.project.trees import DJANGO, FLASK, PLAIN, made

TWO = {**PLAIN, "stock/__init__.py": "", "stock/app.py": PLAIN["shop/app.py"]}
STARTED = FirstStart(tasks=("shop.welcome",), queues=("celery",))


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[StackSpec]:
    """Let every worker start at once, and return the list of what is started."""
    seen: list[StackSpec] = []

    def start(_session: SharedParts, spec: StackSpec, _root: Path) -> FirstStart:
        seen.append(spec)
        return STARTED

    monkeypatch.setattr(init, "start_once", start)
    return seen


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let somebody type these lines on a terminal."""
    monkeypatch.setattr(sys, "stdin", _Terminal("".join(f"{line}\n" for line in lines)))


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


NEW = {"harness.toml", "tests/test_harness_smoke.py", ".gitignore", ".harness/started"}


def test_the_found_app_is_set_up_started_and_the_next_command_is_said(
    tmp_path: Path, starts: list[StackSpec], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made(tmp_path, PLAIN))
    init.init(Path(), None, dry_run=False, yes=False)
    assert names(tmp_path) - PLAIN.keys() == NEW
    (spec,) = starts
    assert (spec.app, spec.app_folder) == ("shop.app", tmp_path)
    assert capsys.readouterr().out == (
        "app         shop.app: app = Celery(...) in shop/app.py, line 4\n"
        "wrote harness.toml\nwrote tests/test_harness_smoke.py\nwrote .gitignore\n"
        "\na worker started. It consumes celery, and knows 1 task:\n  shop.welcome\n"
        "\nnext:  pytest tests/test_harness_smoke.py\n"
    )


def test_a_second_time_writes_and_starts_nothing_and_says_the_next_command(
    tmp_path: Path, starts: list[StackSpec], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made(tmp_path, DJANGO))
    init.init(Path(), None, dry_run=False, yes=False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    init.init(Path(), None, dry_run=False, yes=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(starts) == 1
    assert capsys.readouterr().out.endswith(
        "nothing is left to write, and a worker has started with these settings before.\n"
        "\nnext:  pytest tests/test_harness_smoke.py\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"harness.toml": 'app = "shop.app"\nworkers = 2\nqueues = ["mails"]\n'},
        {"requirements.txt": "celery\nrequests\n"},
        {".env.harness": "SHOP_URL=http://y\n"},
    ],
)
def test_what_a_worker_starts_with_has_changed_so_it_is_started_again(
    tmp_path: Path, starts: list[StackSpec], change: dict[str, str]
) -> None:
    settings = 'app = "shop.app"\nenv_file = ".env.harness"\n'
    files = {"harness.toml": settings, ".env.harness": "SHOP_URL=http://x\n", "requirements.txt": "celery\n"}
    made(tmp_path, {**PLAIN, **files})
    init.init(tmp_path, None, dry_run=False, yes=False)
    init.init(tmp_path, None, dry_run=False, yes=False)
    assert len(starts) == 1
    _planned.cache_clear()
    init.init(made(tmp_path, change), None, dry_run=False, yes=False)
    assert len(starts) == 2


def test_after_a_start_that_failed_it_is_tried_again(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, PLAIN)
    with monkeypatch.context() as broken:
        complaining(broken, "SHOP_URL")
        with pytest.raises(StartError):
            init.init(tmp_path, None, dry_run=False, yes=False)
    init.init(tmp_path, None, dry_run=False, yes=False)
    assert len(starts) == 1


def test_settings_that_name_no_app_are_one_clear_error(tmp_path: Path, starts: list[StackSpec]) -> None:
    made(tmp_path, {**PLAIN, "harness.toml": "workers = 2\n"})
    with pytest.raises(UsageError, match=r"harness\.toml has settings, and names no app: say there what `celery -A`"):
        init.init(tmp_path, None, dry_run=False, yes=False)
    assert starts == []


def test_tables_that_nothing_can_make_from_the_apps_folder_are_said(
    tmp_path: Path, starts: list[StackSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, {**PLAIN, "tools/stock/migrate.py": "", "Procfile": "release: python -m stock.migrate\n"})
    init.init(tmp_path, None, dry_run=False, yes=False)
    assert "note        Procfile: line 1 makes tables, with a command that cannot be run" in capsys.readouterr().out
    assert [spec.prepare for spec in starts] == [()]


def test_what_prepares_the_app_and_how_its_workers_differ_is_said(
    tmp_path: Path, starts: list[StackSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    procfile = (
        "release: python -m shop.migrate\n"
        "mails: celery -A shop.app worker -Q mails -c 4\nreports: celery -A shop.app worker -Q reports -c 1\n"
    )
    made(tmp_path, {**PLAIN, "shop/migrate.py": "", "Procfile": procfile})
    init.init(tmp_path, None, dry_run=False, yes=False)
    said = capsys.readouterr().out
    assert "queues      celery, mails, reports\n" in said
    assert "prepare     python -m shop.migrate, from Procfile: line 1\n" in said
    assert (
        "note        Procfile: line 3 has --concurrency=1; a stack's workers are all alike, and have those of "
        "Procfile: line 2.\n"
    ) in said
    assert [spec.prepare for spec in starts] == [("python -m shop.migrate",)]


def test_a_dry_run_shows_the_diff_and_writes_and_starts_nothing(
    tmp_path: Path, starts: list[StackSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, FLASK)
    init.init(tmp_path, None, dry_run=True, yes=False)
    assert names(tmp_path) == set(FLASK)
    assert starts == []
    said = capsys.readouterr().out
    assert "--- a/pyproject.toml\n+++ b/pyproject.toml\n" in said
    assert '+app = "blog.make_celery:celery_app"\n' in said
    assert said.endswith("nothing was written, because of --dry-run.\n")


def test_without_a_terminal_several_apps_are_one_error_that_lists_them(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError) as raised:
        init.init(made(tmp_path, TWO), None, dry_run=False, yes=False)
    assert str(raised.value) == (
        f"several Celery apps were found in {tmp_path}. Say with --app which one is meant:\n"
        "  --app shop.app: app = Celery(...) in shop/app.py, line 4\n"
        "  --app stock.app: app = Celery(...) in stock/app.py, line 4"
    )
    assert names(tmp_path) == set(TWO)
    assert starts == []


def test_on_a_terminal_somebody_is_asked_which_app_and_whether_to_write(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "2", "y")
    init.init(made(tmp_path, TWO), None, dry_run=False, yes=False)
    assert [spec.app for spec in starts] == ["stock.app"]


def test_who_does_not_want_it_written_gets_nothing_written(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "n")
    with pytest.raises(click.Abort):
        init.init(made(tmp_path, PLAIN), None, dry_run=False, yes=False)
    assert names(tmp_path) == set(PLAIN)
    assert starts == []


def test_yes_asks_nothing_and_takes_the_likeliest(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    init.init(made(tmp_path, TWO), None, dry_run=False, yes=True)
    assert [spec.app for spec in starts] == ["shop.app"]


def test_an_app_that_is_named_is_taken_and_asked_for_no_more(
    tmp_path: Path, starts: list[StackSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    init.init(made(tmp_path, TWO), "stock.app", dry_run=False, yes=False)
    (tmp_path / ".gitignore").unlink()
    init.init(tmp_path, None, dry_run=False, yes=False)
    assert [spec.app for spec in starts] == ["stock.app", "stock.app"]


# ----------------------------------------------------------------------------------------------- what only trying shows


def complaining(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Let a worker ask for these variables, one after the other, as Python does."""

    def start(_session: SharedParts, spec: StackSpec, _root: Path) -> FirstStart:
        for name in missing:
            if name not in spec.env:
                raise StartError(f'worker-1 exited. File "<frozen os>", line 1\nKeyError: {name!r}')
        return STARTED

    monkeypatch.setattr(init, "start_once", start)


@pytest.mark.parametrize("pyproject", [{}, {"pyproject.toml": "[project]\n"}])
def test_variables_that_only_trying_shows_are_added_if_the_project_shows_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyproject: dict[str, str]
) -> None:
    complaining(monkeypatch, "SHOP_URL", "SHOP_CURRENCY")
    made(tmp_path, {**PLAIN, **pyproject, ".env.example": "SHOP_URL=http://x\nSHOP_CURRENCY=EUR\n"})
    init.init(tmp_path, None, dry_run=False, yes=False)
    assert load(tmp_path).env == {"SHOP_URL": "http://x", "SHOP_CURRENCY": "EUR"}


def test_a_variable_that_no_file_shows_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaining(monkeypatch, "SHOP_URL")
    made(tmp_path, {**PLAIN, ".env": "SHOP_URL=http://live\n"})
    with pytest.raises(StartError) as raised:
        init.init(tmp_path, None, dry_run=False, yes=False)
    assert str(raised.value).splitlines()[0] == (
        f"the app wants the environment variable SHOP_URL: give it a value below `env` in {tmp_path / 'harness.toml'}."
    )


def test_settings_that_somebody_wrote_get_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaining(monkeypatch, "SHOP_URL")
    made(tmp_path, {**PLAIN, ".env.example": "SHOP_URL=http://x\n", "harness.toml": 'app = "shop.app"\n'})
    with pytest.raises(StartError, match="the app wants the environment variable SHOP_URL"):
        init.init(tmp_path, None, dry_run=False, yes=False)
    assert (tmp_path / "harness.toml").read_text() == 'app = "shop.app"\n'


def test_a_module_that_the_image_lacks_is_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> FirstStart:
        raise StartError("worker-1 exited. ModuleNotFoundError: No module named 'django'")

    monkeypatch.setattr(init, "start_once", start)
    with pytest.raises(StartError, match="the app imports django, which its image lacks: name what it needs with"):
        init.init(made(tmp_path, DJANGO), None, dry_run=False, yes=False)


def test_without_an_engine_all_is_written_before_the_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        init.init(made(tmp_path, PLAIN), None, dry_run=False, yes=False)
    assert names(tmp_path) - PLAIN.keys() >= NEW - {".harness/started"}
