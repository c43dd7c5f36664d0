"""The mailbox's own server, in a thread of the test."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.inside.smtp_server import listen


@contextmanager
def serving(run: Path) -> Iterator[int]:
    """Serve the mailbox of `run`, and yield its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(listen(run, host="127.0.0.1", port=0), loop).result(5)
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(_drop_clients(), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _drop_clients() -> None:
    clients = asyncio.all_tasks() - {asyncio.current_task()}
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
