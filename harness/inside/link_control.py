"""The program of a stack's link: forwards to the broker, and obeys the harness.

Run in a container as ``python -m harness.inside.link_control``. It listens on a socket in the run folder for orders;
`harness.records.link` defines them. A disturbance ends with the connection that ordered it, so that none outlives the
harness.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from harness.errors import RecordError
from harness.inside.tcp_link import Disturbed, Link
from harness.records.link import LONGEST_LINE, SOCKET, Order, Report

_log = logging.getLogger("harness.link")


class Control:
    """Obeys the orders of all connections to the socket."""

    def __init__(self, link: Link, *, host: str) -> None:
        """Prepare to obey. `host` is where the link listens for clients."""
        self._link = link
        self._host = host

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey the orders of one connection, until its end. Then its disturbance ends."""
        disturbed: Disturbed | None = None
        try:
            while line := await reader.readline():
                disturbed, report = await self._obeyed(line, disturbed)
                writer.write(json.dumps(report.to_json()).encode() + b"\n")
                await writer.drain()
        except OSError as error:
            _log.info("an order was not waited for: %s", error)
        finally:
            if disturbed is not None:
                self._link.end(disturbed)
            writer.close()

    async def _obeyed(self, line: bytes, disturbed: Disturbed | None) -> tuple[Disturbed | None, Report]:
        """Obey one order, and return the disturbance of this connection, and the answer."""
        try:
            order = Order.from_json(json.loads(line))
            if order.listen is not None:
                return disturbed, Report(port=await self._link.listen(order.listen, host=self._host))
        except (RecordError, ValueError, OSError) as error:
            return disturbed, Report(error=f"{type(error).__name__}: {error}")
        if order.disturb is not None:
            client = order.disturb.client
            if disturbed is not None:
                return disturbed, Report(error="this connection has a disturbance already")
            if client is not None and client not in self._link.clients:
                return None, Report(error=f"{client} is no client: {', '.join(self._link.clients) or 'there is none'}")
            disturbed = self._link.begin(order.disturb)
            _log.info("begins: %s", order.disturb)
        if disturbed is None:
            return None, Report()
        if order.end:
            self._link.end(disturbed)
            _log.info("ended: %s", disturbed.what)
        return disturbed, disturbed.report()


async def serve(link: Link, run: Path, *, first: str, host: str, port: int) -> None:
    """Run a link until SIGTERM or SIGINT.

    Args:
        link: what forwards.
        run: the run folder.
        first: the client that is served from the beginning.
        host: the address to listen on.
        port: the port for `first`; 0 takes a free one.

    Raises:
        OSError: the port is taken, or the folder takes no socket.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await link.listen(first, host=host, port=port)
    control = Control(link, host=host)
    path = run / SOCKET
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(control.converse, path, limit=LONGEST_LINE)
    await stopped.wait()
    server.close()
    link.close()


def main() -> None:
    """Serve until SIGTERM or SIGINT, as configured by the environment.

    The variables: HARNESS_RUN (the run folder, /harness/run), HARNESS_LINK_BROKER (the broker's host and port),
    HARNESS_LINK_CLIENT and HARNESS_LINK_PORT (the first client, and its port), HARNESS_LINK_HOST (all interfaces).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    run = Path(os.environ.get("HARNESS_RUN", "/harness/run"))
    host = os.environ.get("HARNESS_LINK_HOST", "0.0.0.0")  # noqa: S104 - the container's; the host publishes it on loopback.
    broker, _, broker_port = os.environ["HARNESS_LINK_BROKER"].rpartition(":")
    first, port = os.environ["HARNESS_LINK_CLIENT"], int(os.environ["HARNESS_LINK_PORT"])
    asyncio.run(serve(Link(broker, int(broker_port)), run, first=first, host=host, port=port))


if __name__ == "__main__":
    main()
