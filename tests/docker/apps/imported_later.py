"""A module with a task, which `endings` does not import by itself."""

from celery import shared_task


@shared_task(name="imported_later.work")
def work() -> str:
    """Do what is to be done."""
    return "done"
