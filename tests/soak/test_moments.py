"""Each moment on each pool is held a hundred times of a hundred, at that moment and no further."""

import itertools
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.records.expectation import Expect
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from tests.docker.accounts import met
from tests.docker.held_moments import EXECUTED, is_there_and_no_further

if TYPE_CHECKING:
    from harness.stack.stack import Stack

pytestmark = pytest.mark.docker
APPS = "tests/docker/apps"
OPTIONS = ["--concurrency=2", "--without-mingle", "--without-gossip"]
TIMES = 100
SENT_BY_A_TASK = (Moment.SENDING, Moment.UNCONFIRMED, Moment.PUBLISHED)
POOLS = ("prefork", "threads", "solo", "gevent")


@pytest.fixture(autouse=True)
def _greenlets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the worker of a pool of greenlets an image that has them."""
    if "gevent" in request.node.name:
        monkeypatch.setenv("HARNESS_DEPENDENCIES", "celery sqlalchemy gevent")


def on_each_pool() -> Iterator[pytest.ParameterSet]:
    for pool in POOLS:
        marker = pytest.mark.stack(app="moments", app_folder=APPS, options=[f"--pool={pool}", *OPTIONS])
        yield pytest.param(pool, marks=marker, id=pool)


@pytest.mark.parametrize("pool", list(on_each_pool()))
def test_each_moment_is_held_each_time(request: pytest.FixtureRequest, pool: str) -> None:
    # Only now, because its image depends on what the environment says by now.
    stack: Stack = request.getfixturevalue("stack")
    held = dict.fromkeys((*SENT_BY_A_TASK, *EXECUTED), 0)
    for moment, _ in itertools.product(held, range(TIMES)):
        task = str(uuid.uuid4())
        with stack.hold("moments.commit", moment, task=task) as hold:
            if moment in SENT_BY_A_TASK:
                stack.producer.send("moments.send_on", [task, task])
            else:
                stack.producer.send("moments.commit", [task], expect=Expect(result=task), task_id=task)
            arrival = hold.wait()
            assert (arrival.task, arrival.node, arrival.moment) == (task, "worker-1", moment)
            is_there_and_no_further(stack, moment, task, key=task)
            assert not hold.is_over
            held[moment] += 1
    assert set(held.values()) == {TIMES}, f"{pool}: {held}"
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: TIMES * (len(held) + len(SENT_BY_A_TASK))}
