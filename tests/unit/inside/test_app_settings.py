"""Settings that a node sets in the app that it runs."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

from harness.inside.app_settings import settings_in, use_settings
from harness.records.values import Json


@pytest.fixture
def app() -> Iterator[Celery]:
    """Return an app whose modules are imported as a worker does it; afterwards nobody listens any more."""
    receivers = list(signals.import_modules.receivers)
    app = Celery("shop", set_as_current=False)
    app.conf.update(task_acks_late=False, shop_colour="red", task_annotations={"pay": {"rate_limit": "1/s"}})
    yield app
    signals.import_modules.receivers[:] = receivers


def overridden(app: Celery, settings: dict[str, Json]) -> None:
    use_settings(settings)
    signals.import_modules.send(sender=app)


def test_they_win_over_the_apps_own(app: Celery) -> None:
    overridden(app, {"task_acks_late": True, "shop_colour": "blue"})
    assert (app.conf.task_acks_late, app.conf.shop_colour) == (True, "blue")


def work() -> None:
    """Do nothing; Celery makes a task of it."""


def task(app: Celery, name: str = "pay") -> Any:
    """Return a task as a worker runs it: Celery annotates it when the app is complete."""
    app.task(work, name=name, shared=False)
    app.finalize()
    return app.tasks[name]


def test_the_apps_own_annotations_stay(app: Celery) -> None:
    overridden(app, {"task_annotations": {"*": {"acks_late": True}}})
    assert (task(app).rate_limit, task(app).acks_late) == ("1/s", True)
    assert (task(app, "other").rate_limit, task(app, "other").acks_late) == (None, True)


@pytest.mark.parametrize("own", ["pay", "*"])
@pytest.mark.parametrize("named", ["pay", "*"])
def test_an_annotation_wins_over_the_apps_own_of_the_same_task_or_of_all(app: Celery, own: str, named: str) -> None:
    app.conf.task_annotations = ({own: {"acks_late": False, "rate_limit": "2/s"}},)
    overridden(app, {"task_annotations": {named: {"acks_late": True}}})
    assert (task(app).acks_late, task(app).rate_limit) == (True, "2/s")


def test_without_annotations_of_its_own_an_app_has_the_others(app: Celery) -> None:
    app.conf.task_annotations = None
    overridden(app, {"task_annotations": {"pay": {"acks_late": True}}})
    assert task(app).acks_late is True


@pytest.mark.parametrize(
    ("name", "advice"), [("task_ack_late", "The nearest is task_acks_late."), ("colour_of_shop", "the app's own.")]
)
def test_a_name_that_nobody_knows_ends_the_process(app: Celery, name: str, advice: str) -> None:
    with pytest.raises(SystemExit, match=f"{name} is no setting of Celery") as ended:
        overridden(app, {name: True})
    assert str(ended.value.code).endswith(advice)


def test_what_is_no_object_ends_the_process() -> None:
    with pytest.raises(SystemExit, match="HARNESS_SETTINGS is no JSON object"):
        settings_in("[1]")
