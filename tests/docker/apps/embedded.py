"""`app` has a schedule; `astray` keeps it where nobody may write."""

from celery import Celery

app = Celery("embedded")
app.conf.beat_schedule = {"often": {"task": "embedded.tick", "schedule": 3.0}}
astray = Celery("astray", set_as_current=False)
astray.conf.beat_schedule_filename = "celerybeat-schedule"
astray.conf.beat_schedule = app.conf.beat_schedule


@app.task
def tick() -> int:
    """Do nothing."""
    return 1


@astray.task(name="embedded.tick")
def tick_astray() -> int:
    """Do nothing."""
    return 1
