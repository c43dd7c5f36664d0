"""Settings of an app that the broker does not have are told; those that are in force are not."""

import json

import pytest

from harness.records.verdict import Verdict
from harness.stack.stack import Stack
from tests.docker.accounts import codes, said

APP = {"app": "differing", "app_folder": "tests/docker/apps"}
pytestmark = pytest.mark.docker


def env(arguments: dict[str, str] | None = None, **settings: object) -> dict[str, object]:
    more = {} if arguments is None else {"ARGUMENTS": json.dumps(arguments)}
    return {**APP, "env": {"SETTINGS": json.dumps(settings), **more}}


def settle(stack: Stack) -> dict[str, str]:
    """Run a task, and return what is told of settings, by its code."""
    stack.producer.send("nap")
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS
    return {code: said(audit, code) for code in codes(audit)}


LEADS_NOWHERE = {"x-dead-letter-exchange": "letters", "x-dead-letter-routing-key": "lettre"}


# celery/celery#9765; of a default queue that the app does not declare itself, Celery 5.7 takes the type.
@pytest.mark.stack(**env({}, task_default_queue_type="quorum"))
def test_a_type_of_the_default_queue_that_celery_does_not_declare_is_told(stack: Stack) -> None:
    assert settle(stack) == {
        "queues-differ": "declared by the app otherwise than the broker has them: "
        '`celery` has x-queue-type="classic", and the app says "quorum"'
    }


@pytest.mark.stack(
    **env({"x-dead-letter-exchange": "letters", "x-dead-letter-routing-key": "letter"}, broker_heartbeat=10)
)
def test_settings_that_are_in_force_are_not_told(stack: Stack) -> None:
    assert settle(stack) == {}


@pytest.mark.stack(**env(task_default_queue_type="quorum"))
def test_a_default_queue_of_the_type_that_is_asked_for_is_not_told(stack: Stack) -> None:
    assert settle(stack) == {}


@pytest.mark.stack(**env(LEADS_NOWHERE, broker_heartbeat=300))
def test_a_dead_letter_target_that_leads_nowhere_and_another_heartbeat_are_told(stack: Stack) -> None:
    assert settle(stack) == {
        "settings-differ": "settings of the app that are not in force: "
        "worker-1 says broker_heartbeat = 300, and its connection has one every 60 s; "
        "`celery` gives its dead letters to the exchange `letters` with the routing key `lettre`, "
        "and no queue gets them from there"
    }
