"""A stack to play with: brought up, described, and taken down again, by one process that owns all of it.

That process says in a state file who it is and what is where. So another one can show it (`status`) and end it
(`down`), and what it started is swept like anybody's if it was killed.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import HarnessError, RunFolderError, StartError, UsageError
from harness.evidence.audit import Audit
from harness.evidence.folder import RunFolder, dump
from harness.evidence.ledger import Ledger
from harness.evidence.records import Json
from harness.nodes.engine import Status, connect, states_of
from harness.nodes.owner import Owner
from harness.session import Say, Session
from harness.stack import Stack, StackSpec
from harness.wait import wait_until

STATE = Path(".harness") / "up.json"
LOG = Path(".harness") / "up.log"
USER = PASSWORD = "guest"  # noqa: S105 - it is in RabbitMQ's own manual.
"""What RabbitMQ's users try first. It is a user of this stack's broker alone, on loopback."""

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
    """What is up, and where. The state file holds this."""

    owner: str
    app: str
    folder: str
    """The run folder."""
    management: str
    web: str
    mails: str
    """The folder of the mails that arrived."""
    results: str
    """The SQLite file of the result tables."""
    nodes: Sequence[str] = field(default_factory=tuple)
    first: str = ""
    """What to try first in a shell."""

    def lives(self) -> bool:
        """Whether the process that owns it still runs."""
        return Owner.lives(self.owner)


def read() -> Playground | None:
    """What is up, as its state file says; None if there is none.

    Raises:
        RunFolderError: the state file is not what `harness up` writes.
    """
    if not STATE.exists():
        return None
    try:
        said = RunFolder(STATE.parent.absolute()).read(STATE.name)
        return Playground(**said)
    except TypeError as error:
        raise RunFolderError(f"{STATE} is not what `harness up` writes: {error}. Remove it.") from error


@contextmanager
def up(plan: Plan, say: Say) -> Iterator[tuple[Playground, Stack]]:
    """Bring everything up, and take it down at the end.

    Raises:
        UsageError: something is up already.
        HarnessError: something does not start.
    """
    refuse_a_second()
    with Session(say) as session:
        session.start()
        folder = RunFolder.create(plan.root, "up")
        spec = StackSpec(app=plan.app, app_folder=plan.app_folder, workers=plan.workers, mailbox=True)
        with Stack(session, spec, folder) as stack, _guest(stack):
            say("starting beat and the web producer")
            stack.add_beat()
            stack.add_web(plan.routes)
            ground = _describe(plan, stack)
            STATE.parent.mkdir(exist_ok=True)
            STATE.write_text(dump(asdict(ground)), encoding="utf-8")
            try:
                yield ground, stack
            finally:
                STATE.unlink(missing_ok=True)


def refuse_a_second() -> None:
    """Raise UsageError if something is up already."""
    known = read()
    if known is not None and known.lives():
        raise UsageError(f"a stack with {known.app} is up already, in {known.folder}: `harness down` ends it.")


@contextmanager
def _guest(stack: Stack) -> Iterator[None]:
    stack.broker.admit(USER, PASSWORD, stack.login.vhost, tags="administrator")
    try:
        yield
    finally:
        stack.broker.expel(USER)


def _describe(plan: Plan, stack: Stack) -> Playground:
    web = stack.web.url
    return Playground(
        owner=str(Owner.here()),
        app=plan.app,
        folder=str(stack.folder.path),
        management=stack.broker.management_url,
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
        for node in stack.nodes():
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
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        # Its own session, so that closing this terminal does not end it.
        process = subprocess.Popen(  # noqa: S603 - this program itself.
            [sys.executable, "-m", "harness", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    shown = 0

    def is_up() -> Playground | None:
        nonlocal shown
        lines = LOG.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if process.poll() is not None:
            raise StartError(f"the stack did not come up; {LOG} has all that it said.")
        ground = read()
        return ground if ground is not None and ground.lives() else None

    try:
        return wait_until(is_up, what="the stack is up", timeout_s=_START_TIMEOUT_S, interval_s=0.2)
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        raise


def down() -> Playground | None:
    """End what is up, and return what it was when all of it is gone; None if nothing was up.

    Raises:
        WaitTimeout: it is not gone after two minutes.
    """
    ground = read()
    if ground is None:
        return None
    owner = Owner.from_label(ground.owner)
    if owner is not None and ground.lives():
        # It may be gone by now, which is all that is wanted.
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGTERM)
        wait_until(
            lambda: not ground.lives(),
            what=f"process {owner.pid} has taken everything down",
            timeout_s=_END_TIMEOUT_S,
            interval_s=0.2,
        )
    STATE.unlink(missing_ok=True)
    return ground


def status(ground: Playground) -> tuple[dict[str, str], dict[str, Json]]:
    """What each node is doing, by name, and how many tasks were sent, have ended, and are open."""
    states = states_of(connect(), ground.owner)
    ledger = Ledger(RunFolder.open(Path(ground.folder)).journal)
    ledger.update()
    seen = {name: str(states.get(name, Status.GONE)) for name in ground.nodes}
    return seen, {"sent": ledger.sent, "ended": ledger.ended, "open": len(ledger.open())}
