"""A stack for manual use: started, described, and taken down again by one process that owns all of it.

That process writes its identity to a state file when it begins, and the addresses when all is up. So another process
can show the stack (`status`) and end it (`down`) at any time. If the owner was killed, `down` removes what it left.
"""

import contextlib
import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import harness
from harness.audit.audit import Audit
from harness.audit.ledger import Ledger
from harness.audit.run_folder import HOME, RunFolder, dump, keep_out_of_version_control
from harness.containers.broker_choice import USUAL_PORTS
from harness.containers.engine import LOOPBACK, Status
from harness.containers.engine_choice import connect
from harness.containers.ownership import Owner
from harness.containers.web_node import HTTP_PORT
from harness.errors import HarnessError, RunFolderError, StartError, UsageError
from harness.records.values import Json
from harness.running.first_step import FIRST_STEPS
from harness.running.live_server import serving
from harness.running.live_stack import LiveStack
from harness.stack.shared_parts import Say, SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until

STATE = Path(HOME) / "up.json"
LOCK = Path(HOME) / "up.lock"
LOG = Path(HOME) / "up.log"
SECRET = Path(HOME) / "up.administrator.json"
"""The login of the broker's administrator. Only the caller can read the file, and it is removed with the stack."""
USER = PASSWORD = "guest"  # noqa: S105 - it is in RabbitMQ's own manual.
"""RabbitMQ's well-known default login. Every user of this machine knows it, so it has rights on the stack's vhost
alone."""

_USUAL_PORTS = (*USUAL_PORTS, HTTP_PORT)
_START_TIMEOUT_S = 900
"""Seconds. The first start builds images."""
_END_TIMEOUT_S = 120
_SETTLE_S = 10
_WATCH_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stack to start, and what comes with it."""

    stack: StackSpec
    routes: str
    """The module with the web producer's own routes; empty for none."""
    root: Path
    """The folder in which the run folder is created."""
    usual_ports: bool = False
    """True if the broker, its page and the web producer have the usual ports of this machine, where these are free."""


@dataclass(frozen=True, kw_only=True)
class Playground:
    """The addresses of the stack, as in the state file. While it starts, only `owner` and `app` are set."""

    owner: str
    app: str
    folder: str = ""
    """The path of the run folder."""
    amqp: str = ""
    """The broker's URL, for the public login."""
    management: str = ""
    administrator: str = ""
    """The file with the name and the password of the broker's administrator."""
    web: str = ""
    mails: str = ""
    """The folder of the received mails."""
    results: str = ""
    """The SQLite file of the result tables."""
    page: str = ""
    """The address of the page that shows it."""
    nodes: Sequence[str] = ()
    first: str = ""
    """The first shell command to try."""

    def __post_init__(self) -> None:
        """Refuse values that no process has written. Raises TypeError or ValueError."""
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
        """True if all of it has started."""
        return bool(self.folder)

    def lives(self) -> bool:
        """Return whether the process that owns it still runs."""
        return Owner.lives(self.owner)


def read() -> Playground | None:
    """Read the state file: the stack that is up or starting; None if there is none.

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
def up(plan: Plan, say: Say) -> Iterator[tuple[Playground, Stack, LiveStack]]:
    """Start everything with its page, and take it down at the end.

    Raises:
        UsageError: a stack is up already, or starting.
        HarnessError: a part of it does not start.
    """
    ports = list(_usual_ports(say)) if plan.usual_ports else [0] * len(_USUAL_PORTS)
    *broker_ports, web_port = ports
    with claimed(plan.stack.app) as state, SharedParts(say, broker_ports=broker_ports) as session:
        session.start()
        folder = RunFolder.create(plan.root, "up")
        with Stack(session, plan.stack, folder) as stack:
            # The broker's end removes this user.
            stack.broker.admit(USER, PASSWORD, stack.login.vhost)
            keep_secret(*stack.broker.administrator)
            say("starting beat and the web producer")
            stack.add_beat()
            stack.add_web(plan.routes, port=web_port)
            ground = _describe(plan, stack)
            live = LiveStack(stack, FIRST_STEPS.get(plan.routes))
            links = {f"RabbitMQ ({USER}, {PASSWORD})": ground.management, "Web producer": f"{ground.web}/docs"}
            with serving(live, partial(live.page, links), say) as address:
                ground = replace(ground, page=address)
                state.write(STATE.name, asdict(ground))
                try:
                    yield ground, stack, live
                finally:
                    # Whatever is started by an order must be there when the stack is taken down.
                    live.end()


def _usual_ports(say: Say) -> Iterator[int]:
    """Yield each usual port, or 0 and say so if another program has it."""
    for port in _USUAL_PORTS:
        with socket.socket() as probe:
            # As the engine does it: what another connection has left behind is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                say(f"port {port} is in use, so that another one is taken")
                yield 0
                continue
        yield port


def refuse_a_second() -> None:
    """Raise UsageError if a stack is up already, or starting."""
    known = read()
    if known is not None and known.lives():
        what = f"is up already, in {known.folder}" if known.is_complete else "is being brought up"
        raise UsageError(f"a stack with {known.app} {what}: `harness down` ends it.")


@contextmanager
def claimed(app: str) -> Iterator[RunFolder]:
    """Claim this folder for a stack and write the state file; yield the folder of that file.

    The state file alone cannot decide between two processes that begin at once; a lock can, and it ends with its
    process.

    Raises:
        UsageError: a stack is up already, or starting.
        RunFolderError: the files cannot be written.
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
    """Write the administrator's name and password to a file that only the caller can read.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        # A killed process leaves its file behind, and another user may have linked it elsewhere.
        SECRET.unlink(missing_ok=True)
        with os.fdopen(os.open(SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(dump({"user": user, "password": password}))
    except OSError as error:
        raise RunFolderError(f"cannot write {SECRET}: {error}") from error


def _describe(plan: Plan, stack: Stack) -> Playground:
    web, step = stack.web.url, FIRST_STEPS.get(plan.routes)
    return Playground(
        owner=str(Owner.here()),
        app=plan.stack.app,
        folder=str(stack.folder.path),
        amqp=stack.broker.refresh(replace(stack.login, user=USER, password=PASSWORD)).amqp_url_outside,
        management=stack.broker.management_url,
        administrator=str(SECRET.absolute()),
        web=web,
        mails=str(stack.folder.path / "effects" / "mail"),
        results=str(stack.folder.results),
        nodes=[stack.broker.name, *(node.name for node in stack.nodes())],
        first=step.command(web) if step is not None else f"curl {web}/openapi.json",
    )


def watch(stack: Stack, say: Say) -> None:
    """Report each node that ends by itself, until an interrupt. Never returns."""
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
    """Call `write` from now on for every new log line of every node, with the node's name and the line."""

    def pump(name: str, lines: Iterator[str]) -> None:
        # The stream ends when its container is removed, as it does for each of them.
        with contextlib.suppress(HarnessError):
            for line in lines:
                write(name, line)

    for node in (stack.broker, *stack.nodes()):
        threading.Thread(target=pump, args=(node.name, node.container.follow()), daemon=True).start()


def settle(stack: Stack) -> Audit:
    """Stop beat and the web producer, wait some seconds for rest, and return the audit."""
    for node in (*stack.beats, stack.web):
        if node.is_up():
            node.stop()
    return stack.settle(_SETTLE_S, limit_s=2 * _SETTLE_S)


def detach(arguments: Sequence[str], say: Say) -> Playground:
    """Start the stack in a process of its own, and return when it is up.

    Args:
        arguments: those of `harness up`.
        say: receives the messages of that process meanwhile.

    Raises:
        UsageError: a stack is up already.
        RunFolderError: its log cannot be written.
        StartError: that process ended; the message names its log.
        WaitTimeout: it is not up after 15 minutes.
    """
    refuse_a_second()
    # A folder named `harness` in the current directory must not come first, unless it is this one.
    isolated = [] if Path(harness.__file__).parents[1] == Path.cwd() else ["-P"]
    try:
        LOG.parent.mkdir(exist_ok=True)
        keep_out_of_version_control(LOG.parent)
        log = LOG.open("wb")
    except OSError as error:
        raise RunFolderError(f"cannot write {LOG}: {error}") from error
    with log:
        # A session of its own, so that closing this terminal does not end it.
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
        # Ask for the end before reading the log: what it wrote before its end is in the log by then. In the other
        # order, the last lines could be missed.
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
        # The lock lets only one process write it, which need not be ours.
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
    """End the stack that is up or starting, and return its description when all of it is gone; None if there is none.

    Raises:
        UsageError: the process that owns it belongs to another user, machine or container.
        WaitTimeout: it is not gone after two minutes.
        EngineError: that process was killed, and what it left cannot be removed.
        RunFolderError: the state file cannot be read.
    """
    ground = read()
    if ground is None:
        return None
    owner = ground.process
    if ground.lives():
        if owner.place != Owner.here().place:
            # Its process id means another process here.
            raise UsageError(
                f"the stack with {ground.app} was brought up by another machine or container: take it down there. "
                f"If that is gone, remove {STATE}."
            )
        try:
            os.kill(owner.pid, signal.SIGTERM)
        except PermissionError as error:
            raise UsageError(f"process {owner.pid} is another user's, who alone can end it.") from error
        except ProcessLookupError:
            pass  # It has ended meanwhile.
        _wait_for_the_end(lambda: not ground.lives(), owner.pid)
    left = read()
    if left is not None and left.owner == ground.owner:
        # A process that ends in order removes this file. This one was killed, and its containers are still there.
        with contextlib.closing(connect()) as engine:
            engine.remove_owned(owner.is_named_by)
        SECRET.unlink(missing_ok=True)
        STATE.unlink(missing_ok=True)
    return ground


def _wait_for_the_end(has_ended: Callable[[], bool], pid: int) -> None:
    what = f"process {pid} has taken everything down"
    wait_until(has_ended, what=what, timeout_s=_END_TIMEOUT_S, interval_s=0.2)


def status(ground: Playground) -> tuple[dict[str, str], dict[str, Json]]:
    """Return the state of each node by name, and the numbers of tasks sent, ended and open."""
    with contextlib.closing(connect()) as engine:
        states = engine.states(ground.process.is_named_by)
    ledger = Ledger(RunFolder.open(Path(ground.folder)).journal)
    ledger.update()
    seen = {name: str(states.get(name, Status.GONE)) for name in ground.nodes}
    return seen, {"sent": ledger.sent, "ended": ledger.ended, "open": len(ledger.open())}
