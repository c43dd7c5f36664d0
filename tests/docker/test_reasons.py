"""Reasons and remedies: what breaks a promise names its setting, and with the proposed lines nothing breaks it.

Each thing is provoked twice. The second time, the workers have the settings that the first audit proposed.
"""

import ast
import json
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.records.expectation import Effects, Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import met
from tests.docker.connections import close_connections

BARE = ["--without-mingle", "--without-gossip"]
ENDINGS = {"app": "endings", "app_folder": "tests/docker/apps"}
MANY = {**ENDINGS, "options": ["--concurrency=6", *BARE]}
ONE = {**ENDINGS, "options": ["--concurrency=1", *BARE]}
DONE = Expect(result="done")
AS_ROOT = {"C_FORCE_ROOT": "1"}
"""Celery refuses to accept pickle as root."""
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]


def remedies(audit: Audit) -> dict[str, list[tuple[str, str]]]:
    """Return the reasons of each finding that has any, each with its remedy."""
    return {
        found.code: [(reason.text, reason.remedy) for reason in found.reasons]
        for found in audit.findings
        if found.reasons
    }


def env(*remedies: tuple[str, str], **more: Any) -> dict[str, str]:
    """Return the environment with which `endings` has what some remedies say; an option of a task, by its name."""
    settings: dict[str, Any] = dict(more)
    annotations: dict[str, Any] = {}
    for task, line in remedies:
        call = ast.parse(line.removeprefix("@")).body[0]
        if isinstance(call, ast.Assign):
            (target,) = call.targets
            assert isinstance(target, ast.Attribute)
            settings[target.attr] = ast.literal_eval(call.value)
        else:
            assert isinstance(call, ast.Expr)
            assert isinstance(call.value, ast.Call)
            given = {str(word.arg): ast.literal_eval(word.value) for word in call.value.keywords}
            if task:
                annotations[task] = given
            else:
                settings |= given
    return {"SETTINGS": json.dumps({**settings, "task_annotations": annotations})}


CHILD = ("", "app.conf.task_reject_on_worker_lost = True")
EARLY_CHILD = ("early", "@app.task(acks_late=True, reject_on_worker_lost=True)")
LIMIT = ("brief", "@app.task(time_limit=8)")
SOFT_LIMIT = ("hurried", "@app.task(soft_time_limit=8)")
RESULT = ("forgotten", "@app.task(ignore_result=False)")
CONTENT = ("", 'app.conf.accept_content = ["json", "pickle"]')
IMPORTS = ("", 'app.conf.imports = ("imported_later",)')


def provoke(stack: Stack) -> Audit:
    """Have pool processes killed, limits reached, a chord without a result, content refused, and an unknown task."""
    send = stack.producer.send
    for name in ("mourned", "early"):
        send(name, kwargs={"key": name, "how": "SIGKILL", "times": 1}, expect=DONE)
    send("brief", [6], expect=DONE)
    send("hurried", [6], expect=DONE)
    send("gather_nothing", ["sum"])
    send("imported_later.work", expect=DONE)
    options = {"serializer": "pickle", "task_id": "pickled"}
    send("hand_on", kwargs={"name": "moody", "kwargs": {"fails": False}, "options": options})
    return stack.settle(timeout_s=20)


@pytest.mark.stack(**MANY)
def test_what_breaks_a_promise_names_its_setting_and_the_line_that_changes_it(stack: Stack) -> None:
    audit = provoke(stack)
    assert met(audit) == {Fate.OK: 4, Fate.FAILED: 5, Fate.UNRECORDED: 1, Fate.PENDING: 1}, audit.text()
    found = remedies(audit)
    assert sorted(found["failed-unexpectedly"]) == [
        ("imports is [] (app)", IMPORTS[1]),
        ("task_acks_late is False (task early)", EARLY_CHILD[1]),
        ("task_reject_on_worker_lost is None (app)", CHILD[1]),
        ("task_soft_time_limit is 4 (task hurried)", SOFT_LIMIT[1]),
        ("task_time_limit is 4 (task brief)", LIMIT[1]),
    ]
    assert found["chords-hopeless"] == [("task_ignore_result is True (task forgotten)", RESULT[1])]
    assert found["unrecorded"] == [("accept_content is ['json'] (app)", CONTENT[1])]
    assert f"remedy: {RESULT[1]}" in audit.text()


REMEDIES = env(CHILD, EARLY_CHILD, LIMIT, SOFT_LIMIT, RESULT, CONTENT, IMPORTS)


@pytest.mark.stack(**MANY, env={**AS_ROOT, **REMEDIES})
def test_with_the_proposed_lines_nothing_breaks_its_promise(stack: Stack) -> None:
    audit = provoke(stack)
    assert audit.passed, audit.text()
    assert set(met(audit)) == {Fate.OK}, audit.text()
    assert remedies(audit) == {}


def kill_held(stack: Stack, name: str, moment: Moment) -> None:
    """Kill the only worker while it holds a task at a moment, and start it again."""
    (worker,) = stack.workers
    with stack.hold(name, moment) as hold:
        stack.producer.send(name, kwargs={"key": name, "how": "", "times": 0}, expect=expect(name))
        hold.wait()
        worker.kill()
        wait_until(lambda: not worker.is_up(), what="the worker is gone", timeout_s=20)
    worker.start()
    worker.wait_ready()


def expect(key: str) -> Expect:
    return Expect(result="done", effects=[key])


@pytest.mark.stack(**ONE, promise=Promise(effects=Effects.ONCE_UNLESS_KILLED))
def test_early_acknowledgement_loses_the_task_of_a_killed_worker_and_late_acknowledgement_does_not(
    stack: Stack,
) -> None:
    kill_held(stack, "early", Moment.STARTED)
    kill_held(stack, "mourned", Moment.STARTED)
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.OK: 1, Fate.LOST: 1}, audit.text()
    assert remedies(audit) == {"lost": [("task_acks_late is False (task early)", "@app.task(acks_late=True)")]}


@pytest.mark.stack(**ONE)
def test_late_acknowledgement_has_an_effect_twice_where_its_worker_dies_before_it_acknowledges(stack: Stack) -> None:
    kill_held(stack, "mourned", Moment.STORED)
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.DUPLICATED: 1}, audit.text()
    said = [("task_acks_late is True (app)", "app.conf.task_acks_late = False")]
    assert remedies(audit) == {"duplicated": said}


LATE = ("early", "@app.task(acks_late=True)")


@pytest.mark.stack(**ONE, env=env(("", "app.conf.task_acks_late = False"), LATE))
def test_with_the_proposed_lines_a_killed_worker_loses_and_repeats_nothing(stack: Stack) -> None:
    kill_held(stack, "early", Moment.STARTED)
    kill_held(stack, "mourned", Moment.STORED)
    audit = stack.settle(timeout_s=20)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 2}


DEDUPLICATE = ("", "app.conf.worker_deduplicate_successful_tasks = True")
CANCEL = ("", "app.conf.worker_cancel_long_running_tasks_on_connection_loss = True")
TWO = {**ENDINGS, "options": ["--concurrency=2", *BARE]}


def cut_off(stack: Stack, *, at_once: bool) -> Audit:
    """Have the broker close all connections while a task runs; it ends before it begins again, or at once with that."""
    with stack.hold("work", Moment.STARTED) as first:
        stack.producer.send("work", ["x"], expect=expect("x"))
        first.wait()
        with stack.hold("work", Moment.STARTED) as second:
            wait_until(lambda: close_connections(stack), what="the broker knows of the connections", timeout_s=20)
            if at_once:
                second.wait()
    return stack.settle(timeout_s=20)


@pytest.mark.stack(**ONE)
def test_a_lost_connection_repeats_what_has_stored_its_result(stack: Stack) -> None:
    audit = cut_off(stack, at_once=False)
    assert met(audit) == {Fate.DUPLICATED: 1}, audit.text()
    said = [("worker_deduplicate_successful_tasks is False (app)", DEDUPLICATE[1])]
    assert remedies(audit) == {"duplicated": said}


@pytest.mark.stack(**ONE, env=env(DEDUPLICATE))
def test_with_the_proposed_line_what_has_stored_its_result_is_not_repeated(stack: Stack) -> None:
    audit = cut_off(stack, at_once=False)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 1}


@pytest.mark.stack(**TWO)
def test_a_lost_connection_repeats_what_goes_on(stack: Stack) -> None:
    audit = cut_off(stack, at_once=True)
    assert met(audit) == {Fate.DUPLICATED: 1}, audit.text()
    said = [("worker_cancel_long_running_tasks_on_connection_loss is False (app)", CANCEL[1])]
    assert remedies(audit) == {"duplicated": said}


@pytest.mark.stack(**TWO, env=env(CANCEL))
def test_with_the_proposed_line_a_lost_connection_ends_what_is_repeated(stack: Stack) -> None:
    audit = cut_off(stack, at_once=True)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 1}


def poison(stack: Stack) -> Audit:
    """Have a task kill its process three times."""
    stack.producer.send("mortal", kwargs={"key": "poison", "how": "SIGKILL", "times": 3}, expect=DONE)
    return stack.settle(timeout_s=20)


LIMITED = {"x-queue-type": "quorum", "x-delivery-limit": 1}
UNLIMITED = 'Queue("celery", queue_arguments={"x-delivery-limit": -1, "x-queue-type": "quorum"})'


@pytest.mark.stack(**ONE, env={"ARGUMENTS": json.dumps(LIMITED)})
def test_a_delivery_limit_loses_what_kills_its_process_too_often(stack: Stack) -> None:
    audit = poison(stack)
    assert met(audit) == {Fate.LOST: 1}, audit.text()
    assert remedies(audit) == {"lost": [("x-delivery-limit is 1 (queue celery)", UNLIMITED)]}


def arguments(line: str) -> str:
    """Return the arguments in the line that declares a queue."""
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call)
    return json.dumps(ast.literal_eval(call.keywords[0].value))


@pytest.mark.stack(**ONE, env={"ARGUMENTS": arguments(UNLIMITED)})
def test_without_a_delivery_limit_it_comes_back(stack: Stack) -> None:
    audit = poison(stack)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 1}


RETRIES = ("retrying", "@app.task(max_retries=3)")
TIMEOUT = "@app.task(acks_on_failure_or_timeout=True)"


def go_on(stack: Stack, name: str) -> Audit:
    """Have a task retry, and one reach its limit, as often as they may."""
    failing = Expect(state="FAILURE", error="MaxRetriesExceededError")
    stack.producer.send("retrying", kwargs={"key": "x", "times": 1_000, "countdown": 0.2}, expect=failing)
    limited = Expect(state="FAILURE", error="TimeLimitExceeded")
    stack.producer.send(name, kwargs={"key": "y", "how": "", "times": 1_000}, expect=limited)
    return stack.settle(timeout_s=4, limit_s=6)


@pytest.mark.stack(**MANY)
def test_what_never_rests_names_the_setting_that_sends_it_on(stack: Stack) -> None:
    found = remedies(go_on(stack, "limited"))
    assert found["pending"] == [("max_retries is None (task retrying)", RETRIES[1])]
    assert found["left-after-end"] == [("task_acks_on_failure_or_timeout is False (task limited)", TIMEOUT)]


@pytest.mark.stack(**MANY, env=env(RETRIES))
def test_with_the_proposed_lines_it_rests(stack: Stack) -> None:
    # It differs from `limited` in this option alone.
    audit = go_on(stack, "limited_for_good")
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.FAILED: 2}


@pytest.mark.stack(**ENDINGS, options=["--pool=threads", "--concurrency=2", *BARE])
def test_a_pool_that_does_not_know_limits_is_named(stack: Stack) -> None:
    expected = Expect(state="FAILURE", error="TimeLimitExceeded")
    stack.producer.send("brief", [4.5], expect=expected)
    audit = stack.settle()
    assert met(audit) == {Fate.WRONG: 1}, audit.text()
    assert remedies(audit) == {"wrong": [("worker_pool is 'threads' (worker)", "celery worker --pool=prefork")]}


@pytest.mark.stack(**ENDINGS, options=["--pool=prefork", "--concurrency=1", *BARE])
def test_a_pool_of_processes_ends_a_task_at_its_limit(stack: Stack) -> None:
    expected = Expect(state="FAILURE", error="TimeLimitExceeded")
    stack.producer.send("brief", [30], expect=expected)
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.FAILED: 1}


@pytest.mark.stack(**ONE, env={"ARGUMENTS": '{"x-max-length": 1}'})
def test_a_queue_with_room_for_one_message_is_named(stack: Stack) -> None:
    fill(stack)
    audit = stack.settle()
    assert met(audit)[Fate.LOST] >= 1, audit.text()
    ((reason, line),) = remedies(audit)["lost"]
    assert reason == "x-max-length is 1 (queue celery)"
    assert json.loads(arguments(line)).items() >= {"x-max-length": 1, "x-overflow": "reject-publish"}.items()


def fill(stack: Stack) -> None:
    """Send more than the queue has room for, while the worker is held."""
    with stack.hold("work", Moment.STARTED) as hold:
        stack.producer.send("work", ["first"], expect=DONE)
        hold.wait()
        for number in range(4):
            stack.producer.send("work", [f"{number}"], expect=DONE)


@pytest.mark.stack(**ONE, env={"ARGUMENTS": '{"x-max-length": 1, "x-overflow": "reject-publish"}'})
def test_a_queue_that_refuses_what_it_has_no_room_for_loses_nothing(stack: Stack) -> None:
    fill(stack)
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert met(audit)[Fate.REFUSED] >= 1
