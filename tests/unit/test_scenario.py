"""Scenarios: how they are found, and what a check that crashes means."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from harness.errors import UsageError
from harness.records.expectation import Delivery, Promise
from harness.records.verdict import Finding, Verdict
from harness.running.run import checked, find_scenario
from harness.scenario import Drive, Option, Request, Scenario, Steps
from harness.stack.stack import Stack

if TYPE_CHECKING:
    from harness.producer import Producer

DRIVE = Drive(count=1, seed=1)
# A scenario that is not driven needs neither.
NO_STACK = cast("Stack", None)
NO_PRODUCER = cast("Producer", None)

SCENARIO = """
from harness.scenario import Scenario

class Payments(Scenario):
    name = "payments"
    app = "shop.app"

scenario = Payments()
"""


@pytest.fixture(autouse=True)
def _modules_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the modules that a test imported, so that the next test does not find them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    # Which package `scenarios` there is, is the finding's to decide.
    for name in [name for name in before if name.partition(".")[0] == "scenarios"]:
        del sys.modules[name]
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenarios").mkdir()
    for name in ("__init__", "_helpers", "payments", "refunds"):
        (tmp_path / "scenarios" / f"{name}.py").write_text(SCENARIO if name == "payments" else "")
    return tmp_path


def test_a_scenario_is_found_by_its_short_name_and_by_its_modules(folder: Path) -> None:
    assert find_scenario("payments", folder) is find_scenario("scenarios.payments", folder)


def test_a_scenario_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no scenario 'nosuch': .* There are: payments\."):
        find_scenario("nosuch", folder)


@pytest.mark.parametrize("name", ["shop.nosuch", "payments.nosuch", "scenarios.payments.nosuch"])
def test_a_dotted_name_is_a_module_and_never_guessed_at(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"has no module {name}\\.$"):
        find_scenario(name, folder)


def test_a_folder_with_a_scenario_py_is_a_scenario_under_the_name_of_the_folder(folder: Path) -> None:
    for place in ("scenarios/returns", "shop/gifts", "vouchers"):
        (folder / place).mkdir(parents=True)
        (folder / place / "__init__.py").write_text("")
        (folder / place / "scenario.py").write_text(SCENARIO)
    found = find_scenario("returns", folder)
    assert found is find_scenario("scenarios.returns", folder) is find_scenario("scenarios.returns.scenario", folder)
    assert isinstance(find_scenario("shop.gifts", folder), Scenario)
    assert isinstance(find_scenario("vouchers", folder), Scenario)
    (folder / "vouchers" / "lot.py").write_text("")
    with pytest.raises(UsageError, match=r"vouchers\.lot has no `scenario`"):
        find_scenario("vouchers.lot", folder)
    with pytest.raises(UsageError, match=r"There are: payments, returns\."):
        find_scenario("nosuch", folder)


def test_where_there_are_no_scenarios_nothing_is_proposed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no module scenarios\.nosuch_[.]$"):
        find_scenario("nosuch_", tmp_path)


def test_a_module_without_a_scenario_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"scenarios\.refunds has no `scenario`"):
        find_scenario("refunds", folder)


def test_a_scenario_that_needs_what_is_not_installed_says_what(folder: Path) -> None:
    (folder / "scenarios" / "refunds.py").write_text("import scenarios.payments, paperwork.forms")
    with pytest.raises(UsageError, match=r"scenarios\.refunds needs the module paperwork, which is not installed"):
        find_scenario("refunds", folder)


class Checked(Scenario):
    """Says what it is given to say."""

    name = "checked"
    app = "shop.app"

    def __init__(self, finds: Iterable[Finding]) -> None:
        """Set the findings of `check`."""
        self.finds = finds

    def check(self, stack: Stack, drive: Drive) -> Iterable[Finding]:
        del stack, drive
        return self.finds


FINDING = Finding(code="late", verdict=Verdict.FAIL, count=1, text="late")


def test_what_a_check_finds_is_passed_on() -> None:
    assert list(checked(Checked([FINDING]), NO_STACK, DRIVE)) == [FINDING]


def test_a_check_that_crashes_keeps_what_it_found_and_is_unknown() -> None:
    def crashes() -> Iterator[Finding]:
        yield FINDING
        raise KeyError("text")

    found, crashed = checked(Checked(crashes()), NO_STACK, DRIVE)
    assert found == FINDING
    assert (crashed.code, crashed.verdict) == ("check-crashed", Verdict.UNKNOWN)
    assert crashed.text == "the check of checked crashed: KeyError: 'text'"


def test_a_scenario_demands_at_least_once_and_checks_nothing_of_its_own_unless_it_says_so() -> None:
    scenario = Scenario()
    assert scenario.promise == Promise(delivery=Delivery.AT_LEAST_ONCE)
    assert list(scenario.check(NO_STACK, DRIVE)) == []
    with pytest.raises(NotImplementedError):
        scenario.step(NO_PRODUCER, 0, 1)


@pytest.mark.parametrize("name", ["", "max-rows", "Rows", "_rows", "rows_", "2rows", "max__rows", "größe"])
def test_an_option_whose_name_a_shell_and_python_could_not_share_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="an option cannot be named"):
        Option(name=name, help="How many rows.", default=10, kind=int)


def test_an_option_that_nobody_gave_has_its_default() -> None:
    scenario = Scenario()
    scenario.options = [Option(name="max_rows", help="How many rows.", default=10, kind=int)]
    assert scenario.value(DRIVE, "max_rows") == 10
    assert scenario.value(Drive(count=1, seed=1, options={"max_rows": 0}), "max_rows") == 0
    with pytest.raises(KeyError):
        scenario.value(DRIVE, "rows")


def test_a_step_cannot_be_taken_over_http_unless_the_scenario_says_how() -> None:
    scenario = Scenario()
    assert scenario.request(0, 1) is None
    assert scenario.routes == ""


@pytest.mark.parametrize("path", ["", "emails", "/two words", "/zoë", "/a\r\nHost: b", "http://elsewhere/emails"])
def test_a_request_whose_path_no_client_could_send_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path of a request: begin with a slash"):
        Request(path=path, body=b"")


def test_a_drive_takes_its_first_steps_unless_it_says_which() -> None:
    assert list(Drive(count=3, seed=1).numbers) == [0, 1, 2]
    taken = Steps.dealt([3, 2])
    assert Drive(count=5, seed=1, steps=taken).numbers is taken
    assert list(Drive(count=0, seed=1, steps=Steps()).numbers) == []
    assert list(dataclasses.replace(Drive(count=3, seed=1), count=2).numbers) == [0, 1]


def test_a_drive_of_other_steps_than_were_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="a drive of 4 steps cannot have taken 5"):
        Drive(count=4, seed=1, steps=Steps.dealt([3, 2]))


@pytest.mark.parametrize(
    ("taken", "numbers"),
    [
        ([], []),
        ([0], []),
        ([3], [0, 1, 2]),
        ([3, 2], [0, 1, 2, 3, 4]),
        ([3, 0, 1], [0, 2, 3, 6]),
        ([0, 0, 2], [2, 5]),
    ],
)
def test_steps_that_were_dealt_out_in_turns_are_told_in_order(taken: Sequence[int], numbers: list[int]) -> None:
    steps = Steps.dealt(taken)
    assert (list(steps), len(steps)) == (numbers, len(numbers))
    assert [number for number in range(-3, 12) if number in steps] == numbers


def test_a_million_steps_take_no_room_and_are_told_apart_at_once() -> None:
    steps = Steps([range(share, 4_000_000_000_000, 4) for share in range(4)])
    assert len(steps) == 4_000_000_000_000
    assert 3_999_999_999_999 in steps
    assert 4_000_000_000_000 not in steps


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([range(3, 0, -1)], "holds no steps"),
        ([range(-2, 4)], "holds no steps"),
        ([range(0, 10, 2), range(1, 10, 2), range(6, 7)], "have a step in common"),
        ([range(0, 100, 3), range(1, 100, 5)], "have a step in common"),
    ],
)
def test_steps_that_would_count_twice_or_from_below_0_are_refused(ranges: Sequence[range], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Steps(ranges)


def test_ranges_that_interleave_or_follow_each_other_have_no_step_in_common() -> None:
    assert list(Steps([range(4, 8), range(4), range(8, 20, 4), range(9, 20, 4)])) == [*range(8), 8, 9, 12, 13, 16, 17]
