"""Sends tasks from many greenlets, as a load process does, and says what became of them.

``python -m gevent.monkey --module tests.docker.pipelining AMQP_URL JOURNAL``: each line of its input is a queue and a
number, and the answer is a line of JSON with the outcomes and reasons of so many tasks that were sent there at once.
"""

import json
import sys
from contextlib import closing
from functools import partial

import gevent
from gevent.pool import Group

from harness.loadtest.publish_pipeline import Pipelined
from harness.producer import Sent
from harness.records.journal import Writer


def _send(producer: Pipelined, queue: str) -> Sent:
    return producer.send("act", queue=queue)


def main(url: str, journal: str) -> None:
    """Obey until the input ends."""
    with closing(Writer(journal, node="load", role="producer")) as writer, Pipelined(url, writer) as producer:
        # Connections are looked after while it waits.
        while line := gevent.get_hub().threadpool.apply(sys.stdin.readline):
            queue, count = line.split()
            sent = Group().map(partial(_send, producer), [queue] * int(count))
            print(json.dumps([[one.outcome.value, one.reason] for one in sent]), flush=True)  # noqa: T201 - the answer.


if __name__ == "__main__":
    main(*sys.argv[1:])
