"""An app whose tasks end in every way, and which runs on every Celery from 5.2."""

from typing import Any

from celery import Celery, chain, chord

app = Celery("every_kind")
app.conf.task_acks_late = True


@app.task(name="give")
def give(value: Any) -> Any:
    """Return a value."""
    return value


@app.task(name="add")
def add(one: int, other: int) -> int:
    """Return a sum."""
    return one + other


@app.task(name="total")
def total(numbers: list[int]) -> int:
    """Return the sum of many."""
    return sum(numbers)


@app.task(name="fan_out")
def fan_out(times: int) -> int:
    """Send other tasks."""
    for number in range(times):
        add.delay(number, number)
    return times


@app.task(name="in_a_row")
def in_a_row() -> str:
    """Send a chain of three."""
    return str(chain(add.s(1, 2), add.s(3), give.s()).delay().id is not None)


@app.task(name="together")
def together() -> str:
    """Send a chord: three tasks, and one that gets their results."""
    return str(chord([add.s(number, number) for number in range(3)])(total.s()).id is not None)


@app.task(name="at_last", bind=True, max_retries=2, default_retry_delay=0.1)
def at_last(self: Any) -> int:
    """Fail once, and return the number of the retry."""
    if not self.request.retries:
        raise self.retry(exc=ConnectionError("not yet"))
    return int(self.request.retries)


@app.task(name="fail")
def fail() -> None:
    """Fail, as expected."""
    raise LookupError("nothing there")
