"""The processes that make the load: one Locust process alone, or a master's workers, each with its share.

With workers, the master owns the stack and makes no load. It tells each worker what to send (`harness-go`). At the end
it makes them freeze (`harness-freeze`): a worker stops its arrivals, waits for its sends in flight, writes the rest of
its journal, and then sends its counts (`harness-frozen`). So the counts are exact. Workers that can access the run
folder, such as those on the master's own machine, write their journals there. Others send their journals to the master
during the run (`harness-journal`).
"""

import os
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import gevent
from gevent.event import Event
from locust.rpc import Message
from locust.runners import MasterRunner, WorkerRunner

from harness.errors import HarnessError, RecordError
from harness.loadtest.generators import FREEZE_S, Generator
from harness.loadtest.worker_messages import FREEZE, FROZEN, GO, JOURNAL, OVER, Frozen, Go, JournalPart, Offer

_SHIP_S = 0.5
"""The interval at which a worker sends the new part of its journal."""
_ANSWER_S = 10.0
"""The longest wait for the answer to a freeze, in addition to the freeze itself."""
_LOOK_S = 0.25
_LEAVE_S = 5.0
"""The longest time that a worker which has to end waits for the master to end the leg."""


class LoadProcesses(Protocol):
    """The processes that make the load."""

    def go(self, go: Go) -> None:
        """Begin a leg. Raises HarnessError if there is no process to make the load."""

    def freeze(self) -> list[Offer]:
        """End the leg, and return the counts of each generator; see `Generator.freeze`."""

    def close(self) -> None:
        """End the run."""


class OneProcess(LoadProcesses):
    """One process that makes all the load, and writes its journal directly into the run folder."""

    def __init__(self, generator: Generator) -> None:
        """Make the load with this process's own generator."""
        self._generator = generator

    def go(self, go: Go) -> None:
        """Begin a leg."""
        self._generator.go(go)

    def freeze(self) -> list[Offer]:
        """End the leg, and return the generator's counts."""
        return [self._generator.freeze()]

    def close(self) -> None:
        """End the run."""
        self._generator.close()


class LocustMaster(LoadProcesses):
    """A Locust master, whose workers make the load, each its share."""

    def __init__(self, runner: MasterRunner) -> None:
        """Register for the messages of the workers of `runner`."""
        self._runner = runner
        self._leg = -1
        self._clients: list[str] = []
        self._frozen: dict[str, Offer] = {}
        self._answered = Event()
        self._run = ""
        self._journal: Path | None = None
        self._gaps: list[str] = []
        runner.register_message(JOURNAL, self._on_journal)
        runner.register_message(FROZEN, self._on_frozen)

    @property
    def count(self) -> int:
        """The number of connected load processes."""
        return sum(self._lives(client.id) for client in self._runner.clients.all)

    def go(self, go: Go) -> None:
        """Give each worker its share. A worker that connects later gets none."""
        self._clients = sorted(client.id for client in self._runner.clients.all if self._lives(client.id))
        if not self._clients:
            raise HarnessError("no load process is connected to the master: start some with --worker, or --processes.")
        self._run, self._leg, self._journal = go.run, go.leg, Path(go.journal)
        self._frozen, self._gaps = {}, []
        for share, client in enumerate(self._clients):
            plan = replace(go.plan, share=share, shares=len(self._clients))
            self._runner.send_message(GO, replace(go, plan=plan).to_json(), client)

    def freeze(self) -> list[Offer]:
        """Make all workers freeze, and return their counts. Do not wait for workers that are no longer connected."""
        for client in self._clients:
            self._runner.send_message(FREEZE, None, client)
        until_s = time.monotonic() + FREEZE_S + _ANSWER_S
        while time.monotonic() < until_s and any(self._lives(one) for one in self._clients if one not in self._frozen):
            self._answered.clear()
            self._answered.wait(timeout=_LOOK_S)
        offers = list(self._frozen.values())
        if missing := [client for client in self._clients if client not in self._frozen]:
            count = f"{len(missing)} of {len(self._clients)}"
            self._gaps.append(f"{count} load processes did not answer at the end: {', '.join(missing)}")
        return [*offers, Offer(broken=tuple(self._gaps))] if self._gaps else offers

    def close(self) -> None:
        """End the run, and tell the workers."""
        for client in self._clients:
            if self._lives(client):
                self._runner.send_message(OVER, None, client)
        self._clients, self._journal = [], None

    def _lives(self, client: str) -> bool:
        """Return whether Locust has heard from a worker lately; after three seconds without a message it has not."""
        found = self._runner.clients.get(client)
        return found is not None and found.state != "missing"

    def _on_frozen(self, msg: Message, **_: Any) -> None:
        try:
            frozen = Frozen.from_json(msg.data)
        except RecordError as error:
            self._gaps.append(f"the answer of {msg.node_id} cannot be read: {error}")
            return
        # An answer can come after the wait for it has ended.
        if frozen.leg == self._leg:
            self._frozen[msg.node_id] = frozen.offer
            self._answered.set()

    def _on_journal(self, msg: Message, **_: Any) -> None:
        try:
            part = JournalPart.from_json(msg.data)
        except RecordError as error:
            self._gaps.append(f"a part of the journal of {msg.node_id} cannot be read: {error}")
            return
        if self._journal is None or part.run != self._run:
            return
        # The name comes from a journal's writer. A name with a folder does not, so the folder is removed.
        path = self._journal / Path(part.name).name
        with path.open("ab") as file:
            if (size := file.tell()) != part.offset:
                # Locust restores a broken connection, but the messages in transit are lost.
                said = f"{path.name} of {msg.node_id} was at {part.offset} bytes, {size} have come"
                self._gaps.append(f"a part of a journal was lost: {said}")
            file.write(zlib.decompress(part.bytes))


class LocustWorker:
    """A Locust worker: a generator that gets its orders from the master."""

    def __init__(self, runner: WorkerRunner, generator: Generator) -> None:
        """Register for the messages of the master of `runner`; `generator` is this process's own."""
        self._runner = runner
        self._generator = generator
        self._parent = os.getppid()
        self._go: Go | None = None
        self._rests = Event()
        self._rests.set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shipped: Counter[Path] = Counter()
        self._shipper: gevent.Greenlet[[], None] | None = None
        runner.register_message(GO, self._on_go)
        runner.register_message(FREEZE, self._on_freeze, concurrent=True)
        runner.register_message(OVER, lambda **_: self.close())

    @property
    def is_orphan(self) -> bool:
        """True if the process that started this one has ended."""
        return os.getppid() != self._parent

    def _on_go(self, msg: Message, **_: Any) -> None:
        try:
            go = Go.from_json(msg.data)
        except RecordError as error:
            # Without the order nothing is known about the leg. The master gets no answer, and reports that.
            self._generator.complain(f"the order to go cannot be read: {error}")
            return
        self._rests.clear()
        try:
            if self._go is None or go.run != self._go.run:
                self.close()
                if not Path(go.journal).is_dir():
                    self._folder = tempfile.TemporaryDirectory(prefix="celery-harness-load-")
                    self._shipper = gevent.spawn(self._ship_on)
            self._go = go
            self._generator.go(replace(go, journal=self._folder.name) if self._folder is not None else go)
        except (HarnessError, OSError) as error:
            self._go = go
            self._generator.complain(f"a load process could not begin: {error}")

    def _on_freeze(self, **_: Any) -> None:
        if self._rests.is_set() or self._go is None:
            return
        offer = self._generator.freeze()
        # Messages of one client arrive in the order in which they were sent: after this one, the master has all parts.
        self._ship()
        self._runner.send_message(FROZEN, Frozen(leg=self._go.leg, offer=offer).to_json())
        self._rests.set()

    def leave(self) -> None:
        """Wait until the master ends the leg, before this process ends. If it does not, end this worker's own part.

        Ctrl-C in a terminal reaches the master and its workers in any order.
        """
        if not self._rests.wait(timeout=_LEAVE_S):
            self._on_freeze()
        self.close()

    def _ship_on(self) -> None:
        while True:
            gevent.sleep(_SHIP_S)
            self._ship()

    def _ship(self) -> None:
        for path in sorted(Path(self._folder.name).glob("*.jsonl")) if self._folder else ():
            with path.open("rb") as file:
                file.seek(self._shipped[path])
                new = file.read()
            if new and self._go is not None:
                part = JournalPart(
                    run=self._go.run, name=path.name, offset=self._shipped[path], bytes=zlib.compress(new, 1)
                )
                self._shipped[path] += len(new)
                self._runner.send_message(JOURNAL, part.to_json())

    def close(self) -> None:
        """End the run, and delete the worker's copy of the journal, which the master has."""
        self._generator.close()
        if self._shipper is not None:
            self._shipper.kill(block=True)
        if self._folder is not None:
            self._folder.cleanup()
        self._go = self._folder = self._shipper = None
        self._shipped.clear()
