"""Small changes: where they are planted, and that a change which nobody notices is told from one that is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import run, trial
from tests.mutants.candidates import Candidates
from tests.mutants.places import places
from tests.mutants.reach import Reach

ROOT = Path(__file__).parents[2]


def changed(file: str, source: str) -> set[str]:
    """Return the source with each of its changes."""
    return {place.planted(source) for place in places(file, source)}


NEGATED = "if (not ('é' < a)):\n    c(\n    )"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < 1", {"a <= 1", "a < 2", "pass"}),
        ("x = a is not None", {"x = a is  None"}),
        ("x = a in b", {"x = a not in b"}),
        ("x = a not in b", {"x = a  in b"}),
        ("x = max(a) + min(b)", {"x = min(a) + min(b)", "x = max(a) + max(b)", "x = max(a) - min(b)"}),
        ("x = any(a) or True", {"x = all(a) or True", "x = any(a) and True", "x = any(a) or False"}),
        ("x = a if b else c", {"x = a if (not (b)) else c"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if (not (a))]"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("x += 1", {"x -= 1", "x += 2"}),
        ("while a:\n    break", {"while a:\n    continue"}),
        ("if a == b:\n    c()", {"if a != b:\n    c()", "if a == b:\n    pass"}),
        ("if 'é' < a:\n    c(\n    )", {"if 'é' <= a:\n    c(\n    )", "if 'é' < a:\n    pass", NEGATED}),
    ],
)
def test_each_token_of_python_that_decides_is_changed(source: str, expected: set[str]) -> None:
    assert changed("a.py", source) == expected


def test_what_decides_nothing_is_left_alone() -> None:
    source = (
        '"""One < 2."""\n\nx = f"{a < b} and {c + 1}"  # Not 1.\n\n\n@dataclass(frozen=True)\nclass A:\n    y = 60\n'
        "z = 1 << 20\nif TYPE_CHECKING:\n    import b\n"
    )
    assert changed("a.py", source) == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("SELECT a FROM b WHERE c = 1", {"<> 1", "= 2", "WHERE true OR c"}),
        ("WHERE a IS NULL AND NOT b", {"IS NOT NULL AND", "NULL OR NOT", "AND b", "WHERE true OR a"}),
        ("WHEN a IN ('AND', 'x') THEN", {"NOT IN (", "'AND~'", "'x~'", "WHEN false AND a"}),
        ("a LEFT JOIN b -- OR it < 1", {"a JOIN b"}),
        ("arg_max(a, t), greatest(a), bool_or(b), DISTINCT c", {"arg_min(", "least(", "bool_and(", " c"}),
        ("a IS DISTINCT FROM b >= $1", {"b > $1"}),
    ],
)
def test_each_word_of_sql_that_decides_is_changed(source: str, expected: set[str]) -> None:
    found = changed("a.sql", source)
    assert len(found) == len(expected)
    assert all(any(part in one for one in found) for part in expected), found


def test_a_change_is_known_again_wherever_its_line_moves() -> None:
    first, second = (place for place in places("a.py", "x = 1\nx = 1\n"))
    assert (first.line, second.line) == (1, 2)
    assert first.key == ("a.py", "x = 1", "1", "2", 1)
    assert second.key == ("a.py", "x = 1", "1", "2", 2)
    moved = places("a.py", "# A line.\nx = 1\nx = 1\n")
    assert [place.key for place in moved] == [first.key, second.key]
    assert str(moved[0]) == "a.py:2: '1' -> '2': x = 1"


def test_every_listed_change_is_one_that_there_is() -> None:
    listed = run.known(run.NO_DIFFERENCE)
    there = {place.key for file in {key[0] for key in listed} for place in places(file, (ROOT / file).read_text())}
    assert listed.keys() - there == set()
    assert all(listed.values())


def test_the_files_that_decide_are_reached_by_their_own_tests_first() -> None:
    reach = Reach(ROOT, "tests/unit")
    nearest = {Path(file).name: reach.tests_of(file)[0] for file in run.DECIDING}
    assert nearest["audit.sql"] == nearest["audit.py"] == "tests/unit/audit/test_audit.py"
    assert nearest["witnesses.sql"] == "tests/unit/audit/test_witnesses.py"
    assert nearest["settling.py"] == "tests/unit/stack/test_settling.py"
    assert nearest["ledger.py"] == "tests/unit/audit/test_ledger.py"
    assert nearest["crontab.py"] == "tests/unit/audit/test_tick_rules.py"


def test_a_test_reaches_what_it_imports_through_what_the_tests_share(tmp_path: Path) -> None:
    files = {
        "harness/it.py": "x = 1\n",
        "tests/fakes/one.py": "from tests.fakes import two\n",
        "tests/fakes/two.py": "from harness import it\n",
        "tests/unit/test_a.py": "from tests.fakes.one import two\n",
        "tests/unit/test_b.py": "import sys\n",
        "tests/docker/test_c.py": "from harness import it\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Reach(tmp_path, "tests/unit").tests_of("harness/it.py") == ["tests/unit/test_a.py"]


Tiny = Callable[..., int]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Make a project of one function and one test of it, and try every change of it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def attempt(source: str, test: str, listed: str = "", *more: str) -> int:
        files = {
            "project/scenarios/lot.py": source,
            "project/scenarios/__init__.py": "",
            "project/tests/unit/test_lot.py": f"from scenarios.lot import lot\n\n\ndef test_lot():\n    {test}\n",
            "project/pytest.ini": "[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n",
            "listed.toml": listed,
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        given = ["--project", str(tmp_path / "project"), "--no-difference", str(tmp_path / "listed.toml")]
        code = run.main([*given, "--files", "scenarios/lot.py", "--workers", "1", *more])
        assert (tmp_path / "project/scenarios/lot.py").read_text() == source, "the project itself is left alone"
        return code

    return attempt


LOT = "def lot(size):\n    x = size > 9\n    return x\n"


def test_when_all_changes_are_noticed_it_passes(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(LOT, "assert [lot(9), lot(10)] == [False, True]") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["2 places, 2 tried, seed 1", "killed 2 survived 0"]


def test_each_of_several_seeds_has_to_pass(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(LOT, "assert lot(10)", "", "--seed", "1", "5", "--count", "1") == 1
    said = capsys.readouterr().out
    assert said.count("2 places, 1 tried, seed ") == 2
    assert sorted(line for line in said.splitlines() if line.startswith("killed")) == [
        "killed 0 survived 1",
        "killed 1 survived 0",
    ]


def test_a_change_that_nobody_notices_is_shown_and_fails(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(LOT, "assert lot(10)") == 1
    said = capsys.readouterr().out
    assert "survived: scenarios/lot.py:2: '>' -> '>=': x = size > 9\n" in said
    assert said.endswith("killed 1 survived 1\n")


def test_a_change_that_makes_no_difference_is_counted_apart(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    listed = """
        [[change]]
        file = "scenarios/lot.py"
        text = "x = size > 9"
        old = ">"
        new = ">="
        reason = "A lot never has nine."
    """
    assert tiny(LOT, "assert lot(10)", listed) == 0
    said = capsys.readouterr().out
    assert said.endswith("killed 1 survived 0 (1 more make no difference)\n")
    assert tiny(LOT, "assert [lot(9), lot(10)] == [False, True]", listed) == 0
    said = capsys.readouterr().out
    assert "noticed, and listed as making no difference: scenarios/lot.py:2" in said
    assert said.endswith("killed 2 survived 0\n")


def test_when_nothing_was_tried_that_makes_a_difference_it_is_unknown(tiny: Tiny) -> None:
    listed = 'change = [{file = "scenarios/lot.py", text = "return x", old = "x", new = "None", reason = "So it is."}]'
    assert tiny("def lot(x):\n    return x\n", "lot(None)", listed) == 3


def test_what_a_test_has_run_itself_is_not_taken_for_a_test(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    inner = "print('FAILED tests/unit/test_inner.py::test_it - it is told'); "
    assert tiny(LOT, f"{inner}assert [lot(9), lot(10)] == [False, True]") == 0
    assert capsys.readouterr().out.endswith("killed 2 survived 0\n")


def test_a_test_that_hangs_has_noticed(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "HANG_S", 1.0)
    assert tiny("def lot(x):\n    while x:\n        break\n", "lot(5)") == 0
    assert capsys.readouterr().out.endswith("killed 1 survived 0 (1 of the killed hung)\n")


@dataclass(frozen=True)
class SlowTree(trial.Tree):
    """A copy whose tests pass, each in 70 s; with a change in place, in `changed_s`."""

    changed_s: float

    async def test(self, *_: object, hang_s: float = trial.HANG_S, **__: Any) -> tuple[int | None, str]:
        needed_s = 70.0 if (self.root / "lot.py").read_text() == "LOT = 1\n" else self.changed_s
        return (None if hang_s < needed_s else 0), ""


@pytest.mark.parametrize(("changed_s", "outcome"), [(70.0, trial.Outcome.SURVIVED), (10_000.0, trial.Outcome.HUNG)])
def test_a_test_that_is_slow_without_a_change_as_well_has_noticed_nothing(
    tmp_path: Path, changed_s: float, outcome: trial.Outcome
) -> None:
    (tmp_path / "lot.py").write_text("LOT = 1\n")
    (place,) = places("lot.py", "LOT = 1\n")
    trials = trial.Trials(tmp_path, tmp_path, {"lot.py": ["tests/unit/test_lot.py"]}, Candidates(tmp_path, [place]))
    tree = SlowTree(tmp_path, tmp_path, changed_s)
    assert asyncio.run(trials.attempt(place, tree)) is outcome


def test_tests_that_fail_without_a_change_say_nothing_of_one(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny(LOT, "assert not lot(10)") == 2
    assert "error: the unit tests fail without any change" in capsys.readouterr().err


def test_tests_that_fail_sometimes_have_noticed_nothing(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    fails_the_second_time = "import pathlib; lot(1); pathlib.Path('once').mkdir()"
    assert tiny(LOT, fails_the_second_time) == 2
    assert "tests that noticed changes fail without any, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listed", "more", "words"),
    [
        ("change = [{}]", (), "listed.toml cannot be read (KeyError('file'))"),
        ("", ("--files", "scenarios/none.py"), "scenarios/none.py cannot be read"),
        ("", ("--files", "tests/unit/test_lot.py", "scenarios/lot.py", "pytest.ini"), "pytest.ini cannot be read"),
    ],
)
def test_a_wrong_use_is_said(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], listed: str, more: tuple[str, ...], words: str
) -> None:
    assert tiny(LOT, "lot(1)", listed, *more) == 2
    assert words in capsys.readouterr().err


def test_a_file_that_no_test_reaches_is_said(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "project/scenarios").mkdir(parents=True)
    (tmp_path / "project/scenarios/alone.py").write_text("x = 1\n")
    assert tiny(LOT, "lot(1)", "", "--files", "scenarios/alone.py") == 2
    assert "no unit test reaches scenarios/alone.py" in capsys.readouterr().err


def test_a_count_is_a_number_from_one_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(["--count", "0"])
    assert "'0' is not a number from 1 on" in capsys.readouterr().err
