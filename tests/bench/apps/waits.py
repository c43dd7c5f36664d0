"""An app whose only task waits, so that the pool has a capacity that everybody can calculate."""

import time
from typing import TYPE_CHECKING

from celery import Celery

from harness import Expect, Scenario

if TYPE_CHECKING:
    from harness.producer import Producer

PROCESSES = 16
WAIT_S = 0.5
CAPACITY_PER_S = PROCESSES / WAIT_S
"""What the pool could do if nothing but the tasks took any time."""

app = Celery("waits")


@app.task(name="waits.wait")
def wait() -> None:
    """Take a while, and nothing of the machine."""
    time.sleep(WAIT_S)


class Waits(Scenario):
    """As little work as can be, for as long as it takes."""

    name = "waits"
    app = "waits"
    worker_options = (f"--concurrency={PROCESSES}", "--without-mingle", "--without-gossip", "--loglevel=warning")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one task."""
        del number, seed
        producer.send("waits.wait", expect=Expect(result=None))


scenario = Waits()
