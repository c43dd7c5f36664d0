"""Two hundred clean runs in which tasks are held at moments of a seed's choice, and let go: none is a false alarm."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from harness import Drive, Moment, Scenario
from harness.errors import WaitTimeout
from harness.running.run import play
from harness.stack.stack import Stack
from tests.soak.test_clean_runs import APPS, OPTIONS, act, double, is_clean, of_scenarios

if TYPE_CHECKING:
    from harness.stack.holds import Hold

pytestmark = pytest.mark.docker
LONGEST_S = 1.0
"""Seconds after which a task is let go, if no other one is held before."""
MOST_PASSED = 8
"""The number of tasks that may pass a moment before one is held."""


@contextmanager
def held_at_random(stack: Stack, seed: int) -> Iterator[None]:
    """Hold one task after another, each until the next one is held; at least one must have been held."""
    chosen, is_over, held = random.Random(seed), threading.Event(), list[Moment]()  # noqa: S311 - no secret.

    def hold_and_let_go() -> None:
        last: Hold | None = None
        while not is_over.is_set():
            hold = stack.hold(None, chosen.choice(list(Moment)), nth=chosen.randint(1, MOST_PASSED))
            try:
                held.append(hold.wait(LONGEST_S).moment)
            except WaitTimeout:
                # The last one is let go as well: its task may be in the way of the others.
                hold.let_go()
            if last is not None:
                last.let_go()
            last = hold
        if last is not None:
            last.let_go()

    thread = threading.Thread(target=hold_and_let_go, name="holds at random")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert held, "no task was ever held"


@pytest.mark.parametrize(("scenario", "drive"), list(of_scenarios()))
@pytest.mark.usefixtures("mailbox")
def test_a_scenario_whose_tasks_are_held_and_let_go_passes(stack: Stack, scenario: Scenario, drive: Drive) -> None:
    with held_at_random(stack, drive.seed):
        audit = play(scenario, stack, drive)
    is_clean(audit)


@pytest.mark.stack(app="faulty", app_folder=APPS, options=OPTIONS)
@pytest.mark.parametrize("number", range(60))
def test_an_app_whose_tasks_have_effects_and_send_others_passes(stack: Stack, number: int) -> None:
    with held_at_random(stack, number):
        act(stack, number)
        audit = stack.settle()
    is_clean(audit)


@pytest.mark.stack(app="attached", app_folder=APPS, options=OPTIONS, workers=2)
@pytest.mark.parametrize("number", range(40))
def test_an_app_of_plain_tasks_passes(stack: Stack, number: int) -> None:
    with held_at_random(stack, number):
        double(stack, number)
        audit = stack.settle()
    is_clean(audit)
