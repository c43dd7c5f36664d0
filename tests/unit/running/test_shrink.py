"""The smallest set of faults that still fails: how it is found, in how many runs, and the test that it becomes."""

import ast
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.faults.timetable import Planned, parse
from harness.running.run import Plan
from harness.running.shrink import Shrunk, shrink, written_test
from harness.scenario import Drive, Scenario
from harness.stack.stack import StackSpec

A, B, C, D = (Planned(fault="noop", at_s=float(number)) for number in range(1, 5))
Made = list[tuple[Planned, ...]]


def when(needed: Collection[Planned], made: Made) -> Callable[[Sequence[Planned]], bool]:
    """Return a run that fails if all of these are among its faults."""

    def fails(some: Sequence[Planned]) -> bool:
        made.append(tuple(some))
        return set(needed) <= set(some)

    return fails


@pytest.mark.parametrize("needed", [[A], [C], [D], [A, B], [A, D], [B, C], [A, C, D], [A, B, C, D], []])
def test_what_is_found_fails_and_has_nothing_that_can_be_left_out(needed: list[Planned]) -> None:
    made: Made = []
    found = shrink([A, B, C, D], when(needed, made))
    assert found == Shrunk(planned=tuple(needed), runs=len(made))
    assert len(set(made)) == len(made), "no set is tried twice"
    assert tuple(needed) in made, "it was run by itself"


def test_the_whole_is_run_again_first_then_without_any_fault() -> None:
    made: Made = []
    shrink([A, B], when([A], made))
    assert made == [(A, B), (), (A,)]


def test_what_does_not_fail_again_is_not_reproduced() -> None:
    made: Made = []
    assert shrink([A, B], when([A, B, C], made)) == Shrunk(planned=None, runs=1)


def test_one_fault_alone_needs_two_runs() -> None:
    assert shrink([A], bool) == Shrunk(planned=(A,), runs=2)


def plan(**options: object) -> Plan:
    spec = StackSpec(app="shop.app", workers=2, mailbox=True, link=True)
    drive = Drive(count=60, seed=7, options=options)
    faults = [parse("kill-worker-2@started:4+3.2s"), parse("reject-mail,code=451@1s+2s")]
    return Plan(scenario=Scenario(), drive=drive, stack=spec, faults=faults, over_s=4.2, root=Path("runs"))


def test_settings_from_outside_are_in_the_test() -> None:
    made = plan()
    spec = replace(made.stack, settings={"task_acks_late": False})
    text = written_test(replace(made, stack=spec), scenario="shop", folder=Path(), found_by="x")
    assert """env={**scenario.env, **{'HARNESS_SETTINGS': '{"task_acks_late": false}'}},""" in text
    ast.parse(text)


def test_the_test_that_is_written_makes_the_same_run() -> None:
    made = plan(rows=3, data=Path("a.csv"), name='O"Neil')
    text = written_test(made, scenario="shop.emails", folder=Path("src"), found_by="harness run shop.emails --chaos")
    tree = ast.parse(text)
    values = {
        ast.unparse(node.targets[0]): ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign)
    }
    assert [parse(one) for one in ast.literal_eval(values["FAULTS"])] == made.faults
    assert values["scenario"] == "find_scenario('shop.emails', Path('src'))"
    (test,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert test.name == "test_shop_emails_keeps_its_promise_under_these_faults"
    marker, mailbox = map(ast.unparse, test.decorator_list)
    assert marker == (
        "pytest.mark.stack(app='shop.app', app_folder='src', options=None, workers=2, own_broker=False, link=True, "
        "env=scenario.env, promise=scenario.promise)"
    )
    assert mailbox == "pytest.mark.usefixtures('mailbox')"
    body = ast.unparse(test)
    assert "Drive(count=60, seed=7, options={'rows': 3, 'data': Path('a.csv'), 'name': 'O\"Neil'})" in body
    assert "over_s=4.2" in body
    assert "Found by: harness run shop.emails --chaos" in (ast.get_docstring(tree) or "")
