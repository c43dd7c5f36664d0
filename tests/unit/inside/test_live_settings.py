"""The options that a worker says of its tasks."""

from collections.abc import Mapping
from typing import Any

import pytest
from celery import Celery, Task

from harness.inside.live_settings import options_of
from harness.records.values import Json


def work() -> None:
    """Do nothing; Celery makes a task of it."""


def options(annotations: Any, *, settings: Mapping[str, Json] | None = None, **own: Any) -> dict[str, Json]:
    """Return what is said of one task that has options of its own and annotations."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings or {}, task_annotations=annotations)
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


@pytest.mark.parametrize("key", ["pay", "*"])
def test_an_option_that_is_as_the_settings_say_is_said_all_the_same(key: str) -> None:
    """Another setting would not change it."""
    assert options(None, acks_late=False) == {"name": "pay", "acks_late": False}
    annotated: dict[str, Json] = {"name": "pay", "acks_late": False, "annotated": {"acks_late": key}}
    assert options({key: {"acks_late": False}}) == annotated
    assert options({key: {"acks_late": False}}, acks_late=True) == annotated


def test_an_option_of_a_base_class_is_said() -> None:
    early = type("Early", (Task,), {"acks_late": False})
    assert options(None, base=early) == {"name": "pay", "acks_late": False}


@pytest.mark.parametrize("is_late", [True, False])
def test_what_only_the_settings_say_is_no_option(*, is_late: bool) -> None:
    assert options(None, settings={"task_acks_late": is_late}) == {}
