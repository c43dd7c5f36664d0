"""An app of which some settings are not in force. The environment has its settings and its queue's arguments."""

import json
import os

from celery import Celery
from kombu import Exchange, Queue

app = Celery("differing")
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))
if "ARGUMENTS" in os.environ:
    arguments = json.loads(os.environ["ARGUMENTS"])
    letters = Queue("letters", Exchange("letters", type="direct"), routing_key="letter")
    app.conf.task_queues = [Queue("celery", queue_arguments=arguments), letters]


@app.task(name="nap")
def nap() -> str:
    """Do nothing."""
    return "done"
