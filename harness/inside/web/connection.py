"""An HTTP connection with a limit on how long the server waits for a request."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from harness.inside.web.body import IDLE_LIMIT_S


class ImpatientConnection(H11Protocol):
    """A connection that is closed when the head of its next request is not complete within IDLE_LIMIT_S.

    The server itself times a connection out only between two requests.
    """

    _head_is_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As the server has it.
        """Start the time limit of the first head."""
        super().connection_made(transport)
        self._head_is_late = self.loop.call_later(IDLE_LIMIT_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take more bytes. The time limit runs from the first byte of a head; later bytes do not extend it."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._head_is_late is None:
            self._head_is_late = self.loop.call_later(IDLE_LIMIT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection, by either side."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._head_is_late is not None:
            self._head_is_late.cancel()
            self._head_is_late = None

    def _give_up(self) -> None:
        self._head_is_late = None
        if not self.transport.is_closing():
            self.transport.close()
