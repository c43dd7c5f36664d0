"""The options that a worker says of its tasks."""

from typing import Any

import pytest
from celery import Celery

from harness.inside.live_settings import options_of
from harness.records.values import Json


def work() -> None:
    """Do nothing; Celery makes a task of it."""


def options(annotations: Any, **own: Any) -> dict[str, Json]:
    """Return what is said of one task that has options of its own and annotations."""
    app = Celery("shop", set_as_current=False)
    app.conf.task_annotations = annotations
    app.task(work, name="pay", shared=False, **own)
    app.finalize()
    return next((said for said in options_of(app) if said["name"] == "pay"), {})


def test_an_option_of_its_decorator_is_said() -> None:
    assert options(None, acks_late=True) == {"name": "pay", "acks_late": True}


@pytest.mark.parametrize(
    ("annotations", "key"),
    [
        ({"pay": {"acks_late": True}}, "pay"),
        ({"*": {"acks_late": True}}, "*"),
        ({"pay": {"acks_late": False}, "*": {"acks_late": True}}, "*"),
        ([{"other": {"acks_late": False}}, {"pay": {"acks_late": True}}], "pay"),
    ],
)
def test_an_option_that_annotations_set_is_said_with_the_key_that_wins(annotations: Any, key: str) -> None:
    assert options(annotations, acks_late=False) == {"name": "pay", "acks_late": True, "annotated": {"acks_late": key}}


def test_an_annotation_that_changes_nothing_is_not_said() -> None:
    assert options({"pay": {"acks_late": False}}) == {}
