"""A container as pytest-celery sees it: docker-py's object, whose life goes through a node of the harness."""

import queue
import threading
import time
from typing import Any

from harness.containers.node import Node
from harness.errors import StartError

_LOG_LINES = 20


class ServedContainer:
    """docker-py's object of a node. What it does not have itself, that object has."""

    def __init__(self, node: Node, native: Any, *, since_t: float | None = None) -> None:
        """Wrap a node that runs.

        Args:
            node: is told of all that is done to the container, so that it knows of it.
            native: docker-py's object.
            since_t: the time at which its log begins for this test, in seconds since the epoch; None for all of it.
        """
        self.node = node
        self._native = native
        self._since_t = since_t

    def __getattr__(self, name: str) -> Any:
        """Return docker-py's own attribute."""
        return getattr(self._native, name)

    def check_up(self) -> bool:
        """Return True if it runs: it was ready when it was started. Raises StartError if it does not run."""
        if not self.node.is_up():
            said = self.node.last_lines(_LOG_LINES)
            raise StartError(f"{self.node.name} {self.node.container.state()}. Its last log lines:\n{said}")
        return True

    def host_port(self, port: str) -> int:
        """Return the port of this machine that leads to a port inside, such as `5672/tcp`."""
        return self.node.container.host_port(int(port.partition("/")[0]))[1]

    def kill(self, signal: str | int | None = None) -> None:
        """Send a signal to its first process."""
        self.node.kill("SIGKILL" if signal is None else str(signal))

    def restart(self, timeout: int = 10) -> None:
        """Stop it and start it, and return when it is ready."""
        self.node.restart(timeout)
        self.node.wait_ready()
        self._native.reload()

    def remove(self, **_: Any) -> None:
        """Do nothing: the harness removes it at the end of the test."""

    def logs(self, **options: Any) -> Any:
        """Return its log as docker-py does, since the test began."""
        return self._native.logs(**self._options(), **options)

    def has_logged(self, text: str, timeout_s: float) -> bool:
        """Return whether its log has a text, as soon as it has; False after `timeout_s` seconds, or when it has exited.

        The log's own stream wakes this, so that no time passes between the line and the answer.
        """
        deadline_s = time.monotonic() + timeout_s
        if text in self.logs().decode(errors="replace"):
            return True
        parts: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stream = self._native.logs(stream=True, follow=True, **self._options())
        threading.Thread(target=_pass_on, args=(stream, parts), daemon=True).start()
        seen, wanted = b"", text.encode()
        try:
            while (left_s := deadline_s - time.monotonic()) > 0:
                try:
                    part = parts.get(timeout=left_s)
                except queue.Empty:
                    return False
                if part is None:
                    break
                seen += part
                if wanted in seen:
                    return True
        finally:
            stream.close()
        # It has exited: nothing more will come.
        return text in self.logs().decode(errors="replace")

    def _options(self) -> dict[str, float]:
        return {} if self._since_t is None else {"since": self._since_t}


def _pass_on(stream: Any, parts: "queue.SimpleQueue[bytes | None]") -> None:
    """Put each part of a stream into a queue, and None at its end."""
    try:
        for part in stream:
            parts.put(part)
    except (OSError, ValueError):
        # It was closed meanwhile, by whom nobody waits for it any more.
        pass
    finally:
        parts.put(None)
