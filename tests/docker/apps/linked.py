"""Tasks whose messages are acknowledged late, over connections that notice soon that the other end is gone."""

import os

from celery import Celery

app = Celery("linked")
app.conf.update(
    task_acks_late=os.environ.get("ACKS") != "early",
    worker_prefetch_multiplier=1,
    # Each end gives the other up after some two of these, in seconds.
    broker_heartbeat=int(os.environ.get("HEARTBEAT_S", "60")),
    broker_connection_timeout=2,
    # A worker of Celery 5.7 ends if it connects anew before the broker has deleted its exclusive queue.
    control_queue_exclusive=os.environ.get("CONTROL") == "exclusive",
)


@app.task
def act(key: str) -> str:
    """Do what takes no time."""
    return key
