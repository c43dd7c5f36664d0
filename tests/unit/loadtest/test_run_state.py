"""The states of a Locust process: each transition that is allowed, and each that is not."""

import itertools

import pytest

from harness.loadtest.run_state import MOVES, ForbiddenError, Heard, RunEvent, RunState, State, Stay

ALLOWED = {
    (State.CHECKING, RunEvent.CHECKED): State.READY,
    (State.READY, RunEvent.BEGUN): State.OPENING,
    (State.REST, RunEvent.BEGUN): State.OPENING,
    (State.FAILED, RunEvent.BEGUN): State.OPENING,
    (State.OPENING, RunEvent.OPENED): State.ON,
    (State.OPENING, RunEvent.STOPPED): State.REST,
    (State.READY, RunEvent.FAILED): State.FAILED,
    (State.OPENING, RunEvent.FAILED): State.FAILED,
    (State.ON, RunEvent.FAILED): State.FAILING,
    (State.CLOSING, RunEvent.FAILED): State.DROPPING,
    (State.REST, RunEvent.FAILED): State.FAILED,
    (State.ON, RunEvent.CLOSING): State.CLOSING,
    (State.FAILING, RunEvent.CLOSING): State.DROPPING,
    (State.CLOSING, RunEvent.CLOSED): State.REST,
    (State.DROPPING, RunEvent.CLOSED): State.FAILED,
}
FORBIDDEN = [pair for pair in itertools.product(State, RunEvent) if pair not in ALLOWED]


def in_state(state: State, *, has_begun: bool = True) -> RunState:
    made = RunState()
    made.state, made.has_begun = state, has_begun
    return made


@pytest.mark.parametrize(("before", "event", "after"), [(*pair, after) for pair, after in ALLOWED.items()])
def test_what_may_happen_leads_where_it_should(before: State, event: RunEvent, after: State) -> None:
    run = in_state(before)
    assert run.can(event)
    run.move(event)
    assert run.state is after


@pytest.mark.parametrize(("state", "event"), FORBIDDEN)
def test_what_may_not_happen_is_refused_and_changes_nothing(state: State, event: RunEvent) -> None:
    run = in_state(state)
    assert not run.can(event)
    with pytest.raises(ForbiddenError, match=f"a run that is {state.value} cannot be {event.value}"):
        run.move(event)
    assert run.state is state


def test_every_event_is_known() -> None:
    assert MOVES.keys() == set(RunEvent)


def test_a_run_that_goes_well() -> None:
    run = RunState()
    phases: list[str] = []
    for event in (RunEvent.CHECKED, RunEvent.BEGUN, RunEvent.OPENED, RunEvent.CLOSING, RunEvent.CLOSED):
        assert run.has_begun == (len(phases) > 1)
        phases.append(run.phase)
        run.move(event)
    assert [*phases, run.phase] == ["checking", "rest", "opening", "on", "closing", "rest"]
    assert not run.is_broken


@pytest.mark.parametrize("state", State)
def test_a_run_goes_wrong_once(state: State) -> None:
    run = in_state(state)
    phase = run.phase
    is_news = state not in {State.CHECKING, State.FAILING, State.DROPPING, State.FAILED}
    assert run.fail() == is_news
    assert run.is_broken == (state is not State.CHECKING)
    assert run.phase == ("rest" if state is State.OPENING else phase)
    assert not run.fail()


@pytest.mark.parametrize("state", State)
def test_what_is_abandoned_goes_wrong_no_more_and_stays_where_it_is(state: State) -> None:
    run = in_state(state)
    assert run.abandon()
    assert not run.abandon()
    assert not run.fail()
    assert (run.state, run.is_leaving, run.is_abandoned) == (state, True, True)


def test_the_next_run_is_not_broken_by_the_one_before() -> None:
    run = in_state(State.FAILED)
    run.move(RunEvent.BEGUN)
    assert not run.is_broken


def test_a_process_that_leaves_never_stays_again() -> None:
    run = RunState()
    assert (run.stay, run.is_leaving, run.is_abandoned) == (Stay.STAYS, False, False)
    run.leave()
    assert (run.stay, run.is_leaving, run.is_abandoned) == (Stay.LEAVES, True, False)
    run.abandon()
    run.leave()
    assert run.stay is Stay.ABANDONED


def test_told_to_end_twice_is_told_again() -> None:
    run = RunState()
    assert [run.tell_to_end(), run.tell_to_end()] == [False, True]


@pytest.mark.parametrize(
    ("state", "has_begun", "leaves", "is_again", "is_heard", "heard", "said"),
    [
        (State.OPENING, True, False, False, True, Heard.ABANDON, "while the stack came up"),
        (State.CHECKING, False, False, False, False, Heard.ABANDON, "before anything was sent"),
        (State.READY, False, False, False, False, Heard.ABANDON, "before anything was sent"),
        (State.READY, False, False, False, True, Heard.FINISH, None),
        (State.READY, False, True, False, True, Heard.WAIT, "being taken down already"),
        (State.REST, True, False, False, False, Heard.FINISH, None),
        (State.REST, True, True, True, False, Heard.WAIT, "being taken down already"),
        (State.FAILED, True, True, False, False, Heard.WAIT, "being taken down already"),
        (State.REST, True, False, True, True, Heard.ABANDON, "interrupted again"),
        (State.ON, True, False, False, True, Heard.FINISH, "no more arrivals"),
        (State.FAILING, True, True, False, True, Heard.FINISH, "no more arrivals"),
        (State.ON, True, True, True, True, Heard.ABANDON, "interrupted again"),
        (State.CLOSING, True, True, False, True, Heard.FINISH, "nothing more is sent"),
        (State.DROPPING, True, True, True, True, Heard.ABANDON, "interrupted again"),
        (State.CHECKING, False, False, False, True, Heard.FINISH, None),
    ],
)
def test_what_ctrl_c_means(
    state: State,
    *,
    has_begun: bool,
    leaves: bool,
    is_again: bool,
    is_heard: bool,
    heard: Heard,
    said: str | None,
) -> None:
    run = in_state(state, has_begun=has_begun)
    if leaves:
        run.leave()
    found, line = run.interrupt(is_again=is_again, is_heard=is_heard)
    assert found is heard
    assert (line is None) == (said is None)
    assert said is None or said in (line or "")
