"""The audit: the fate of each task, from the run folder alone. It needs neither Docker nor Celery."""
