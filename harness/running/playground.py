"""A stack to play with: brought up, described, and taken down again, by one process that owns all of it.

That process says in a state file who it is, as soon as it begins, and what is where, as soon as it is up. So another
one can show it (`status`) and end it (`down`) at any time. If it was killed, `down` removes what it left.
"""

import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
from harness.audit.audit import Audit
from harness.audit.ledger import Ledger
from harness.audit.run_folder import HOME, RunFolder, dump, keep_out_of_version_control
from harness.containers.engine import Status, connect, states_of
from harness.containers.ownership import Owner, remove_doomed
from harness.errors import HarnessError, RunFolderError, StartError, UsageError
from harness.records.values import Json
from harness.stack.shared_parts import Say, SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until

STATE = Path(HOME) / "up.json"
LOCK = Path(HOME) / "up.lock"
LOG = Path(HOME) / "up.log"
SECRET = Path(HOME) / "up.administrator.json"
"""Who may do everything at the broker. Only the caller can read it, and it goes with the stack."""
USER = PASSWORD = "guest"  # noqa: S105 - it is in RabbitMQ's own manual.
"""What RabbitMQ's users try first. Whoever is on this machine knows it, so it has rights on the stack's vhost alone."""

_START_TIMEOUT_S = 900
"""The first time, images are built."""
_END_TIMEOUT_S = 120
_SETTLE_S = 10
_WATCH_S = 2.0

_FIRST_STEPS = {
    "scenarios.web": (
        "curl -i {web}/emails -H 'Content-Type: application/json' -d "
        '\'{{"customer": {{"name": "Zoë", "email": "zoe@example.com"}}, "currency": "EUR", '
        '"lines": [{{"sku": "TEA-01", "title": "Sencha tea", "quantity": 2, "unit_price_cents": 1250}}]}}\''
    ),
}
"""What a person can send first to the routes that come with the harness."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is brought up."""

    app: str
    app_folder: Path
    routes: str
    """The module with the web producer's own routes; empty for none."""
    workers: int
    root: Path
    """Where the run folder is made."""


@dataclass(frozen=True, kw_only=True)
class Playground:
    """What is up, and where; nothing but owner and app while it is brought up. The state file holds this."""

    owner: str
    app: str
    folder: str = ""
    """The run folder."""
    management: str = ""
    administrator: str = ""
    """The file with the name and the password of the broker's administrator."""
    web: str = ""
    mails: str = ""
    """The folder of the mails that arrived."""
    results: str = ""
    """The SQLite file of the result tables."""
    nodes: Sequence[str] = ()
    first: str = ""
    """What to try first in a shell."""

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError for what no process has written."""
        for name, value in asdict(self).items():
            texts = value if name == "nodes" else [value]
            if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"{name} cannot be {value!r}")
        _ = self.process

    @property
    def process(self) -> Owner:
        """The process that owns it."""
        process = Owner.from_label(self.owner)
        if process is None:
            raise ValueError(f"{self.owner!r} names no process")
        return process

    @property
    def is_complete(self) -> bool:
        """Whether all of it has come up."""
        return bool(self.folder)

    def lives(self) -> bool:
        """Whether the process that owns it still runs."""
        return Owner.lives(self.owner)


def read() -> Playground | None:
    """What is up or coming up, as its state file says; None if there is none.

    Raises:
        RunFolderError: the state file cannot be read, or is not what `harness up` writes.
    """
    try:
        return Playground(**json.loads(STATE.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{STATE} is not what `harness up` writes: {error}. Remove it.") from error


@contextmanager
def up(plan: Plan, say: Say) -> Iterator[tuple[Playground, Stack]]:
    """Bring everything up, and take it down at the end.

    Raises:
        UsageError: something is up already, or coming up.
        HarnessError: something does not start.
    """
    with claimed(plan.app) as state, SharedParts(say) as session:
        session.start()
        folder = RunFolder.create(plan.root, "up")
        spec = StackSpec(app=plan.app, app_folder=plan.app_folder, workers=plan.workers, mailbox=True)
        with Stack(session, spec, folder) as stack:
            # It goes with the broker.
            stack.broker.admit(USER, PASSWORD, stack.login.vhost)
            keep_secret(*stack.broker.administrator)
            say("starting beat and the web producer")
            stack.add_beat()
            stack.add_web(plan.routes)
            ground = _describe(plan, stack)
            state.write(STATE.name, asdict(ground))
            yield ground, stack


def refuse_a_second() -> None:
    """Raise UsageError if something is up already, or coming up."""
    known = read()
    if known is not None and known.lives():
        what = f"is up already, in {known.folder}" if known.is_complete else "is being brought up"
        raise UsageError(f"a stack with {known.app} {what}: `harness down` ends it.")


@contextmanager
def claimed(app: str) -> Iterator[RunFolder]:
    """Be the one who brings something up in this folder, and say so in the state file; yields the state file's folder.

    The state file alone cannot decide between two that begin at once; a lock can, and it ends with its process.
    """
    refuse_a_second()
    try:
        LOCK.parent.mkdir(exist_ok=True)
        keep_out_of_version_control(LOCK.parent)
        lock = LOCK.open("w")
    except OSError as error:
        raise RunFolderError(f"cannot write {LOCK}: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("another process is bringing up a stack here: `harness down` ends it.") from None
        state = RunFolder(STATE.parent.absolute())
        state.write(STATE.name, asdict(Playground(owner=str(Owner.here()), app=app)))
        try:
            yield state
        finally:
            SECRET.unlink(missing_ok=True)
            STATE.unlink(missing_ok=True)


def keep_secret(user: str, password: str) -> None:
    """Write the administrator's name and password where only the caller can read them.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        # One that was killed has left its own, which anybody may have linked to somewhere by now.
        SECRET.unlink(missing_ok=True)
        with os.fdopen(os.open(SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(dump({"user": user, "password": password}))
    except OSError as error:
        raise RunFolderError(f"cannot write {SECRET}: {error}") from error


def _describe(plan: Plan, stack: Stack) -> Playground:
    web = stack.web.url
    return Playground(
        owner=str(Owner.here()),
        app=plan.app,
        folder=str(stack.folder.path),
        management=stack.broker.management_url,
        administrator=str(SECRET.absolute()),
        web=web,
        mails=str(stack.folder.path / "effects" / "mail"),
        results=str(stack.folder.results),
        nodes=[stack.broker.name, *(node.name for node in stack.nodes())],
        first=_FIRST_STEPS.get(plan.routes, "curl {web}/openapi.json").format(web=web),
    )


def watch(stack: Stack, say: Say) -> None:
    """Return never: tell of each node that ends by itself, until somebody interrupts."""
    ended: set[str] = set()

    def look() -> None:
        for node in (stack.broker, *stack.nodes()):
            if node.is_up():
                ended.discard(node.name)
            elif node.name not in ended:
                ended.add(node.name)
                say(f"{node.name} is down. Its last words: {node.last_lines(3) or 'none'}")

    wait_until(look, what="somebody interrupts", timeout_s=math.inf, interval_s=_WATCH_S)


def follow(stack: Stack, write: Callable[[str, str], None]) -> None:
    """From now on hand every new log line of every node to `write`, as the node's name and the line."""

    def pump(name: str, lines: Iterator[str]) -> None:
        # The stream breaks off when its container is removed, which is how every one of them ends.
        with contextlib.suppress(HarnessError):
            for line in lines:
                write(name, line)

    for node in (stack.broker, *stack.nodes()):
        threading.Thread(target=pump, args=(node.name, node.container.follow()), daemon=True).start()


def settle(stack: Stack) -> Audit:
    """Let nothing new come in, let what is there come to rest for some seconds, and account for it."""
    for node in (*stack.beats, stack.web):
        if node.is_up():
            node.stop()
    return stack.settle(_SETTLE_S, limit_s=2 * _SETTLE_S)


def detach(arguments: Sequence[str], say: Say) -> Playground:
    """Bring it up in a process of its own, and return when it is up.

    Args:
        arguments: of `harness up`.
        say: is shown what that process says meanwhile.

    Raises:
        UsageError: something is up already.
        StartError: that process ended; the message has its last words.
    """
    refuse_a_second()
    # A folder named `harness` where we are must not come first, unless it is this one.
    isolated = [] if Path(harness.__file__).parents[1] == Path.cwd() else ["-P"]
    try:
        LOG.parent.mkdir(exist_ok=True)
        keep_out_of_version_control(LOG.parent)
        log = LOG.open("wb")
    except OSError as error:
        raise RunFolderError(f"cannot write {LOG}: {error}") from error
    with log:
        # Its own session, so that closing this terminal does not end it.
        process = subprocess.Popen(  # noqa: S603 - this program itself.
            [sys.executable, *isolated, "-m", "harness", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    shown = 0

    def is_up() -> Playground | None:
        nonlocal shown
        # What it said before it ended is in the log by now; asked the other way round, its last words could be missed.
        ended = process.poll() is not None
        said = LOG.read_bytes()[shown:]
        if not ended:
            said = said[: said.rfind(b"\n") + 1]
        shown += len(said)
        for line in said.decode(errors="replace").splitlines():
            say(line)
        if ended:
            raise StartError(f"the stack did not come up; {LOG} has all that it said.")
        ground = read()
        # The lock lets one process alone write it, which need not be ours.
        return ground if ground is not None and ground.is_complete and ground.process.pid == process.pid else None

    try:
        return wait_until(is_up, what="the stack is up", timeout_s=_START_TIMEOUT_S, interval_s=0.2)
    except BaseException:
        if process.poll() is None:
            say("taking it down")
            process.send_signal(signal.SIGTERM)
            _wait_for_the_end(lambda: process.poll() is not None, process.pid)
        raise


def down() -> Playground | None:
    """End what is up or coming up, and return what it was when all of it is gone; None if nothing was up.

    Raises:
        UsageError: the process that owns it is not ours to end.
        WaitTimeout: it is not gone after two minutes.
        EngineError: that process was killed, and what it left cannot be removed.
    """
    ground = read()
    if ground is None:
        return None
    owner = ground.process
    if ground.lives():
        if owner.place != Owner.here().place:
            # Its number means another process here.
            raise UsageError(
                f"the stack with {ground.app} was brought up by another machine or container: take it down there. "
                f"If that is gone, remove {STATE}."
            )
        try:
            os.kill(owner.pid, signal.SIGTERM)
        except PermissionError as error:
            raise UsageError(f"process {owner.pid} is another user's, who alone can end it.") from error
        except ProcessLookupError:
            pass  # It has ended since, which is all that is wanted.
        _wait_for_the_end(lambda: not ground.lives(), owner.pid)
    left = read()
    if left is not None and left.owner == ground.owner:
        # Who ends in good order removes this file. It was killed, and what it started is still there.
        remove_doomed(connect(), owner.is_named_by)
        SECRET.unlink(missing_ok=True)
        STATE.unlink(missing_ok=True)
    return ground


def _wait_for_the_end(has_ended: Callable[[], bool], pid: int) -> None:
    what = f"process {pid} has taken everything down"
    wait_until(has_ended, what=what, timeout_s=_END_TIMEOUT_S, interval_s=0.2)


def status(ground: Playground) -> tuple[dict[str, str], dict[str, Json]]:
    """What each node is doing, by name, and how many tasks were sent, have ended, and are open."""
    states = states_of(connect(), ground.process)
    ledger = Ledger(RunFolder.open(Path(ground.folder)).journal)
    ledger.update()
    seen = {name: str(states.get(name, Status.GONE)) for name in ground.nodes}
    return seen, {"sent": ledger.sent, "ended": ledger.ended, "open": len(ledger.open())}
