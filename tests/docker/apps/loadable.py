"""An app for load tests of the load test: a task that does nothing, and one that a worker loses in silence."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery, Task

from harness.records.expectation import Expect
from harness.scenario import Scenario

if TYPE_CHECKING:
    from harness.producer import Producer

app = Celery("loadable")
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1

LOST = 10
"""One in so many is lost."""


@app.task(name="loadable.echo")
def echo(number: int, pause_s: float = 0.0) -> int:
    """Return what it got."""
    time.sleep(pause_s)
    return number


def drop(*_: Any, **__: Any) -> Callable[..., None]:
    """Celery's strategy for a task: what a worker does with its messages. This one acknowledges, and that is all."""

    def take(message: Any, _body: Any, _ack: Any, _reject: Any, callbacks: Any, **_: Any) -> None:
        del callbacks
        message.ack()

    return take


class DroppedTask(Task):
    """A task that no worker ever runs."""

    Strategy = "tests.docker.apps.loadable:drop"


@app.task(base=DroppedTask, name="loadable.dropped")
def dropped(number: int) -> int:
    """Never runs."""
    return number


class Echoes(Scenario):
    """What works."""

    name = "echoes"
    app = "tests.docker.apps.loadable"
    worker_options = ("--concurrency=2", "--without-mingle", "--without-gossip", "--loglevel=warning")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one task."""
        del seed
        producer.send(self.task(number), kwargs={"number": number}, expect=Expect(result=number))

    def task(self, _number: int) -> str:
        """Which task a step sends."""
        return "loadable.echo"


class Leaks(Echoes):
    """What loses one task in ten."""

    name = "leaks"

    def task(self, number: int) -> str:
        """Which task a step sends."""
        return "loadable.echo" if number % LOST else "loadable.dropped"


scenario = Echoes()
