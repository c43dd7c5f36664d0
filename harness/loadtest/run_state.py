"""The states of one Locust process in a load test, and the events that change the state.

    CHECKING   the order is checked, before anything is started
    READY      no run has begun
    OPENING    a stack comes up
    ON         tasks are sent
    FAILING    the run has failed, and is being stopped: there will be no account
    CLOSING    nothing more is sent, and the account is made
    DROPPING   the stack of a failed run is taken down
    REST       a run is over
    FAILED     the last run has failed and is over, or no further run is possible

In addition, the process stays, leaves after the run, or is abandoned: everything is taken down at once. These three
change only in this order.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum

_CHECKING, _REST, _OPENING, _ON, _CLOSING = "checking", "rest", "opening", "on", "closing"


class State(Enum):
    """The state of the run."""

    CHECKING = "checking"
    READY = "ready"
    OPENING = "opening"
    ON = "on"
    FAILING = "failing"
    CLOSING = "closing"
    DROPPING = "dropping"
    REST = "rest"
    FAILED = "failed"


class RunEvent(Enum):
    """An event of the run."""

    CHECKED = "checked"
    BEGUN = "begun"
    OPENED = "opened"
    STOPPED = "stopped"
    """The run was stopped while its stack came up."""
    FAILED = "failed"
    CLOSING = "closing"
    CLOSED = "closed"


MOVES: Mapping[RunEvent, Mapping[State, State]] = {
    RunEvent.CHECKED: {State.CHECKING: State.READY},
    RunEvent.BEGUN: dict.fromkeys((State.READY, State.REST, State.FAILED), State.OPENING),
    RunEvent.OPENED: {State.OPENING: State.ON},
    RunEvent.STOPPED: {State.OPENING: State.REST},
    RunEvent.FAILED: {
        State.READY: State.FAILED,
        State.OPENING: State.FAILED,
        State.ON: State.FAILING,
        State.CLOSING: State.DROPPING,
        State.REST: State.FAILED,
    },
    RunEvent.CLOSING: {State.ON: State.CLOSING, State.FAILING: State.DROPPING},
    RunEvent.CLOSED: {State.CLOSING: State.REST, State.DROPPING: State.FAILED},
}
"""The next state for each event in each state. All other events are forbidden."""

_PHASES: Mapping[State, str] = {
    State.CHECKING: _CHECKING,
    State.READY: _REST,
    State.OPENING: _OPENING,
    State.ON: _ON,
    State.FAILING: _ON,
    State.CLOSING: _CLOSING,
    State.DROPPING: _CLOSING,
    State.REST: _REST,
    State.FAILED: _REST,
}


class Stay(IntEnum):
    """The plan for the process after the run."""

    STAYS = 0
    LEAVES = 1
    ABANDONED = 2


class Heard(Enum):
    """The reaction to Ctrl-C."""

    ABANDON = "abandon"
    """Take everything down at once."""
    FINISH = "finish"
    """End the run, and then the process."""
    WAIT = "wait"
    """Do nothing: everything is being taken down already."""


class ForbiddenError(RuntimeError):
    """An event that is not allowed in this state."""


class RunState:
    """The state of a process's run, and the plan for the process after it."""

    def __init__(self) -> None:
        """Begin before the check of the order."""
        self.state = State.CHECKING
        self.stay = Stay.STAYS
        self.has_begun = False
        """True if a run was begun."""
        self.is_told_to_end = False
        """True after Ctrl-C, or when the process quits: another Ctrl-C then takes everything down at once."""

    @property
    def phase(self) -> str:
        """The phase of the run, for display: `checking`, `rest`, `opening`, `on` or `closing`."""
        return _PHASES[self.state]

    @property
    def is_broken(self) -> bool:
        """True if the run has failed, so that it has no account."""
        return self.state in {State.FAILING, State.DROPPING, State.FAILED}

    @property
    def is_at_rest(self) -> bool:
        """True if no run is on."""
        return self.phase == _REST

    @property
    def is_leaving(self) -> bool:
        """True if the process will end after the run."""
        return self.stay >= Stay.LEAVES

    @property
    def is_abandoned(self) -> bool:
        """True if everything is taken down at once."""
        return self.stay is Stay.ABANDONED

    def can(self, event: RunEvent) -> bool:
        """Return whether an event is allowed in this state."""
        return self.state in MOVES[event]

    def move(self, event: RunEvent) -> None:
        """Change the state by an event.

        Raises:
            ForbiddenError: the event is not allowed in this state.
        """
        if not self.can(event):
            raise ForbiddenError(f"a run that is {self.state.value} cannot be {event.value}.")
        self.state = MOVES[event][self.state]
        self.has_begun |= event is RunEvent.BEGUN

    def fail(self) -> bool:
        """Record a failure, and return whether the state allows that.

        It does not before the order is checked, after an earlier failure, and in an abandoned process.
        """
        if self.is_abandoned or not self.can(RunEvent.FAILED):
            return False
        self.move(RunEvent.FAILED)
        return True

    def leave(self) -> None:
        """Let the process end after the run."""
        self.stay = max(self.stay, Stay.LEAVES)

    def abandon(self) -> bool:
        """Abandon the process, and return whether it was not abandoned before."""
        is_news = not self.is_abandoned
        self.stay = Stay.ABANDONED
        return is_news

    def tell_to_end(self) -> bool:
        """Tell the process to end, and return whether it had been told before."""
        before, self.is_told_to_end = self.is_told_to_end, True
        return before

    def interrupt(self, *, is_again: bool, is_heard: bool) -> tuple[Heard, str | None]:
        """Return the reaction to Ctrl-C, and the line to show; None if there is none.

        Args:
            is_again: True if the process had been told to end before.
            is_heard: True if Locust itself handles Ctrl-C while no run has begun.
        """
        if self.state is State.OPENING:
            return Heard.ABANDON, "interrupted while the stack came up: it is taken down"
        if self.phase in {_CHECKING, _REST} and not self.has_begun and not is_heard:
            return Heard.ABANDON, "interrupted before anything was sent"
        if self.is_at_rest and self.is_leaving:
            return Heard.WAIT, "everything is being taken down already"
        if is_again:
            return Heard.ABANDON, "interrupted again: everything is taken down at once, without an account"
        return Heard.FINISH, _FINISHING.get(self.phase)


_FINISHING: Mapping[str, str] = {
    _CLOSING: "nothing more is sent, and what was sent is waited for; Ctrl-C once more takes everything down at once",
    _ON: "interrupted: no more arrivals; Ctrl-C once more takes everything down at once",
}
