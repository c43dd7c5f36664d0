# shared_task uses this app as soon as Django has started.
from .celery import app as celery_app

__all__ = ("celery_app",)
