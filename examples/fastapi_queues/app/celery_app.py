import os

from celery import Celery

celery_app = Celery(
    "app",
    broker=os.environ["CELERY_BROKER_URL"],
    include=["app.tasks.mails", "app.tasks.reports"],
)
celery_app.conf.update(
    task_routes={
        "app.tasks.mails.*": {"queue": "mails"},
        "app.tasks.reports.*": {"queue": "reports"},
    },
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)
