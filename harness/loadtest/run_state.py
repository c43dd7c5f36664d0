"""The states of one Locust process in a load test, and what leads from one to another.

    CHECKING   the order is looked at, before anything is started
    READY      no run has begun
    OPENING    a stack comes up
    ON         tasks are sent
    FAILING    the run goes wrong, and is being stopped: there will be no account
    CLOSING    nothing more is sent, and the account is made
    DROPPING   the stack of a run that went wrong is taken down
    REST       a run is over
    FAILED     the last run went wrong and is over, or there can be no further one

Beside that, the process stays, is to leave, or is abandoned: everything is taken down at once. It never turns back.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum

_CHECKING, _REST, _OPENING, _ON, _CLOSING = "checking", "rest", "opening", "on", "closing"


class State(Enum):
    """Of the run."""

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
    """What happens to the run."""

    CHECKED = "checked"
    BEGUN = "begun"
    OPENED = "opened"
    STOPPED = "stopped"
    """While its stack came up."""
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
"""Where each event leads from each state; what is not here is forbidden."""

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
    """Whether the process goes on after the run."""

    STAYS = 0
    LEAVES = 1
    ABANDONED = 2


class Heard(Enum):
    """What is to be done at Ctrl-C."""

    ABANDON = "abandon"
    """Take everything down at once."""
    FINISH = "finish"
    """End the run, and then the process."""
    WAIT = "wait"
    """Nothing: that is being done."""


class ForbiddenError(RuntimeError):
    """An event that cannot be in this state."""


class RunState:
    """Where a process is, and whether it goes on."""

    def __init__(self) -> None:
        """The order is not looked at yet."""
        self.state = State.CHECKING
        self.stay = Stay.STAYS
        self.has_begun = False
        """Whether any run was begun."""
        self.is_told_to_end = False
        """Whether somebody has pressed Ctrl-C, or the process quits: once more takes everything down."""

    @property
    def phase(self) -> str:
        """What a reader is told: `checking`, `rest`, `opening`, `on` or `closing`."""
        return _PHASES[self.state]

    @property
    def is_broken(self) -> bool:
        """Whether the run went wrong, so that there is no account of it."""
        return self.state in {State.FAILING, State.DROPPING, State.FAILED}

    @property
    def is_at_rest(self) -> bool:
        """Whether no run is on."""
        return self.phase == _REST

    @property
    def is_leaving(self) -> bool:
        """Whether the process is to end."""
        return self.stay >= Stay.LEAVES

    @property
    def is_abandoned(self) -> bool:
        """Whether everything is taken down at once."""
        return self.stay is Stay.ABANDONED

    def can(self, event: RunEvent) -> bool:
        """Whether an event can be in this state."""
        return self.state in MOVES[event]

    def move(self, event: RunEvent) -> None:
        """An event happens.

        Raises:
            ForbiddenError: it cannot be in this state.
        """
        if not self.can(event):
            raise ForbiddenError(f"a run that is {self.state.value} cannot be {event.value}.")
        self.state = MOVES[event][self.state]
        self.has_begun |= event is RunEvent.BEGUN

    def fail(self) -> bool:
        """Something went wrong. Return whether that is news: a run goes wrong once, and what is abandoned has."""
        if self.is_abandoned or not self.can(RunEvent.FAILED):
            return False
        self.move(RunEvent.FAILED)
        return True

    def leave(self) -> None:
        """The process is to end."""
        self.stay = max(self.stay, Stay.LEAVES)

    def abandon(self) -> bool:
        """Everything is to be taken down at once. Return whether that is news."""
        is_news = not self.is_abandoned
        self.stay = Stay.ABANDONED
        return is_news

    def tell_to_end(self) -> bool:
        """The process is told to end. Return whether it had been told before."""
        before, self.is_told_to_end = self.is_told_to_end, True
        return before

    def interrupt(self, *, is_again: bool, is_heard: bool) -> tuple[Heard, str | None]:
        """What is to be done at Ctrl-C, and what is to be said of it.

        Args:
            is_again: whether the process had been told to end before.
            is_heard: whether Locust itself would hear of it while no run has begun.
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
