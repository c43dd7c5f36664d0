"""An app whose worker cannot wait: what is to be held back for a later time, it begins at once."""

from typing import Any

from celery import Celery
from celery.worker import components
from kombu.asynchronous.timer import Timer


class HastyTimer(Timer):
    """Calls at once whatever is to be called at some time."""

    def call_at(self, eta: float, fun: Any, args: Any = (), kwargs: Any = None, priority: int = 0) -> Any:
        """As the real one, but for the time."""
        del eta
        return self.call_after(0, fun, args, kwargs, priority)


# Where a worker has an event loop, Celery asks no setting for the class of its timer.
components._Timer = HastyTimer  # noqa: SLF001 - a fault that no public name leads to.

app = Celery("hasty")


@app.task(name="hasty.remind")
def remind() -> None:
    """Remind nobody of nothing."""
