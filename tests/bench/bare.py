"""A loop of greenlets that publish tasks with confirms, and do nothing else. Prints messages a second.

``python -m gevent.monkey --module tests.bench.bare AMQP_URL GREENLETS SECONDS celery|kombu``: by Celery's own
`send_task`, or by Kombu alone with a message that is made beforehand.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import kombu
from celery import Celery

from tests.bench.messages import publish


def by_kombu(url: str, _greenlets: int) -> Iterator[Callable[[], None]]:
    """For each greenlet, a function that publishes one message on a connection of its own."""
    while True:
        connection = kombu.Connection(url, transport_options={"confirm_publish": True})
        channel = connection.default_channel
        channel.queue_declare("celery", durable=True, auto_delete=False)
        yield partial(publish, kombu.Producer(channel), "celery")


def by_celery(url: str, greenlets: int) -> Iterator[Callable[[], None]]:
    """Yield functions that publish by an app without a result backend and with as many connections as greenlets."""
    app = Celery("bare", broker=url, set_as_current=False)
    app.backend_cls = "disabled"
    app.conf.update(broker_pool_limit=greenlets, broker_transport_options={"confirm_publish": True})
    while True:
        yield lambda: app.send_task("noop")


def main(url: str, greenlets: int, seconds: float, how: str) -> None:
    """Publish, and say how much."""
    counts = [0] * greenlets
    begin_s = time.monotonic() + 1
    until_s = begin_s + seconds
    senders = {"celery": by_celery, "kombu": by_kombu}[how](url, greenlets)

    def loop(index: int, send: Callable[[], None]) -> None:
        while (now_s := time.monotonic()) < until_s:
            send()
            counts[index] += now_s >= begin_s

    gevent.joinall([gevent.spawn(loop, index, next(senders)) for index in range(greenlets)], raise_error=True)
    print(sum(counts) / seconds)  # noqa: T201 - whoever started it reads it.


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
