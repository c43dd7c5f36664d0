"""An app of which one task keeps memory."""

from celery import Celery

app = Celery("leaking")
kept: list[bytearray] = []


@app.task(name="nap", ignore_result=True)
def nap() -> None:
    """Do nothing."""


@app.task(name="leak", ignore_result=True)
def leak() -> None:
    """Keep 20 kB."""
    kept.append(bytearray(b"x" * 20_000))
