"""The stack process as its load process has it: a subprocess that takes orders, answers, and says things by itself."""

import contextlib
import itertools
import json
import logging
import signal
import sys
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult
from gevent.subprocess import PIPE, Popen

from harness.errors import HarnessError
from harness.printable import printable
from harness.records.values import Json

_log = logging.getLogger("harness.load")


class StackClient:
    """Starts `harness.loadtest.stack_process`, and exchanges lines of JSON with it; see there for what they say."""

    def __init__(
        self,
        *,
        on_say: Callable[[str], None],
        on_live: Callable[[dict[str, Json]], None],
        on_gone: Callable[[HarnessError], None],
    ) -> None:
        """Each is called from one greenlet, one at a time.

        Args:
            on_say: takes a line for whoever waits.
            on_live: takes what happened in the last second.
            on_gone: takes what is to be said when it has ended though nobody asked it to.
        """
        self._on_say = on_say
        self._on_live = on_live
        self._on_gone = on_gone
        self._is_to_end = False
        # A session of its own: Ctrl-C goes to all processes of a terminal's foreground, and the stack process still
        # has to drain, to audit and to take down.
        self._process = Popen(
            [sys.executable, "-P", "-m", "harness.loadtest.stack_process"],
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise HarnessError("the process of the stack was started without pipes.")
        self._in, self._out = self._process.stdin, self._process.stdout
        self._answers: dict[int, AsyncResult[dict[str, Json]]] = {}
        self._ids = itertools.count(1)
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._out:
            # What a stack process had begun to write when it was killed is no message.
            if not line.endswith(b"\n"):
                break
            message = json.loads(line)
            if message["said"] == "say":
                self._on_say(message["line"])
            elif message["said"] == "live":
                self._on_live(message)
            elif (answer := self._answers.get(message["id"])) is not None:
                answer.set(message)
            elif message["said"] == "error":
                # Of an order whose answer nobody waits for.
                _log.error("%s", printable(message["text"]))
        gone = _gone(self._process.wait())
        if not self._is_to_end:
            self._is_to_end = True
            self._on_gone(gone)
        for answer in list(self._answers.values()):
            answer.set({"said": "error", "text": str(gone)})

    def order(self, do: str, **more: Json) -> int:
        """Give an order without waiting for its answer, and return its id. Raises HarnessError if it has ended."""
        number = next(self._ids)
        try:
            self._in.write((json.dumps({"do": do, "id": number, **more}) + "\n").encode())
            self._in.flush()
        except (OSError, ValueError) as error:
            raise HarnessError("the process of the stack has ended, and takes no orders.") from error
        return number

    def ask(self, do: str, **more: Json) -> dict[str, Json]:
        """Give an order, and return its answer. The stack process bounds each of its own waits.

        Raises:
            HarnessError: it could not be carried out.
        """
        # The answer cannot be read before this greenlet waits for it.
        number = self.order(do, **more)
        answer = self._answers[number] = AsyncResult()
        if self._reader.ready():
            answer.set({"said": "error", "text": "the process of the stack has ended."})
        try:
            said = answer.get() or {}
        finally:
            del self._answers[number]
        if said["said"] == "error":
            raise HarnessError(said["text"])
        return dict(said)

    def end(self) -> bool:
        """Close its input, at which it takes everything down, and wait for it. A second time only waits.

        Returns:
            Whether everything was taken down; if not, it has said what was not.
        """
        self._is_to_end = True
        with contextlib.suppress(OSError, ValueError):
            self._in.close()
        code = self._process.wait()
        self._reader.join(timeout=5)
        return code == 0


def _gone(code: int) -> HarnessError:
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has ended with exit code {code}"
    return HarnessError(f"the process of the stack {how}: there is no account, and the next start sweeps what it left.")
