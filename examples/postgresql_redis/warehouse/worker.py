import os

from celery import Celery

app = Celery("warehouse", broker=os.environ["BROKER_URL"], include=["warehouse.tasks"])
app.conf.task_acks_late = True
app.conf.task_reject_on_worker_lost = True
