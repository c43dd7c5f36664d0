"""Why a promise was broken: each rule with its setting, with its remedy, and with another cause."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.audit.audit import Audit
from harness.audit.reason_rules import RULES, Rule
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Delivery, Effects, Promise
from harness.records.verdict import Fate, Finding, Reason, Verdict
from tests.fakes.world import World, finding

DEFAULTS: dict[str, Any] = {
    "task_acks_late": False,
    "task_acks_on_failure_or_timeout": True,
    "task_reject_on_worker_lost": None,
    "task_ignore_result": False,
    "accept_content": ["json"],
    "result_expires": 86_400.0,
    "pool": "prefork",
    "concurrency": 1,
    "prefetch_multiplier": 4,
    "tasks": ["mail"],
    "timezone": "UTC",
    "enable_utc": True,
}
LATE = {"task_acks_late": True}
PAGE = Path(__file__).parents[3] / "docs" / "reasons.md"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a run whose worker has the defaults of Celery; `settings` changes them."""
    world = World(RunFolder.create(tmp_path, "test"))
    settings(world)
    return world


def settings(world: World, task: dict[str, Any] | None = None, **app: Any) -> None:
    """Have the worker say its settings, and how the task `mail` differs from them."""
    world.lines.pop("worker-1", None)
    world.say("worker-1", "settings", **{**DEFAULTS, **app})
    if task is not None:
        world.say("worker-1", "options", name="mail", **task)


def begin(world: World, child: int = 7, **started: Any) -> None:
    world.say(f"worker-1.{child}", "started", "x", name="mail", retries=0, **started)


def die(world: World, child: int = 7, code: int = -9) -> None:
    world.say("worker-1", "exited", child=child, code=code)


def fail(world: World, error: str, *, outside: bool = True) -> None:
    """Have the execution fail, as the worker's main process or the pool process says it."""
    said = {"outside": True} if outside else {}
    world.say("worker-1" if outside else "worker-1.7", "finished", "x", state="FAILURE", error=f"{error}: 1", **said)
    world.record("x", "FAILURE", {"exc_type": error})


def end(world: World, child: int = 7, **said: Any) -> None:
    world.say(f"worker-1.{child}", "finished", "x", state="SUCCESS", **said)


def queue(world: World, kind: str = "classic", **arguments: Any) -> None:
    assert world.remains
    named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    about = {"name": "celery", "kind": kind, "ready": 0, "unacked": 0, "consumers": 1}
    world.remains["queues"] = [{**about, "arguments": named}]


# What was seen. Each leaves a task `x` that broke its promise.


def died_in_mid_task(world: World) -> None:
    world.intend("x")
    begin(world)


def never_began(world: World) -> None:
    world.intend("x")


def softly_stopped(world: World) -> None:
    died_in_mid_task(world)
    world.record("x", "RETRY", b"{}")


def effect_is_absent(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world)
    world.record("x")


def dropped(world: World) -> None:
    world.intend("x")
    for child in (7, 8, 9):
        begin(world, child, redelivered=child > 7)
        die(world, child)
    queue(world, "quorum", delivery_limit=2)


def dropped_without_a_limit(world: World) -> None:
    dropped(world)
    queue(world)


def full(world: World) -> None:
    never_began(world)
    queue(world, max_length=5)


def too_large(world: World) -> None:
    never_began(world)
    queue(world, max_length_bytes=5)


def too_old(world: World) -> None:
    never_began(world)
    queue(world, message_ttl=5)


def unlimited(world: World) -> None:
    never_began(world)
    queue(world)


def killed_child(world: World) -> None:
    world.intend("x", effects=[])
    begin(world)
    die(world)
    fail(world, "WorkerLostError")


def raised(world: World) -> None:
    world.intend("x", effects=[])
    begin(world)
    fail(world, "ValueError", outside=False)


def limited(world: World) -> None:
    world.intend("x", effects=[])
    begin(world)
    die(world)
    fail(world, "TimeLimitExceeded")


def softly_limited(world: World) -> None:
    world.intend("x", effects=[])
    begin(world)
    fail(world, "SoftTimeLimitExceeded", outside=False)


def limited_again(world: World) -> None:
    limited(world)
    begin(world, 8, redelivered=True)
    die(world, 8)


def not_limited(world: World) -> None:
    world.intend("x", effects=[], expect={"state": "FAILURE", "error": "TimeLimitExceeded"})
    begin(world)
    end(world)
    world.record("x")


def not_failed(world: World) -> None:
    world.intend("x", effects=[], expect={"state": "FAILURE", "error": "ValueError"})
    begin(world)
    end(world)
    world.record("x")


def twice(world: World) -> None:
    world.record("x")
    world.mail("x")
    world.mail("x")


def came_back_after_its_result(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world, store_s=0.1)
    begin(world, 8, redelivered=True)
    end(world, 8)
    twice(world)


def came_back_while_it_ran(world: World) -> None:
    world.intend("x")
    begin(world)
    begin(world, 8, redelivered=True)
    end(world)
    end(world, 8)
    twice(world)


def came_back_after_a_death(world: World) -> None:
    world.intend("x")
    begin(world)
    die(world)
    begin(world, 8, redelivered=True)
    end(world, 8)
    twice(world)


def came_back_after_its_workers_death(world: World) -> None:
    world.intend("x")
    begin(world)
    begin(world, 8, redelivered=True)
    end(world, 8)
    twice(world)


def had_its_effect_twice(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world)
    twice(world)


def unconfirmed(world: World) -> None:
    world.intend("x", "unconfirmed")


def unanswered(world: World) -> None:
    world.intend("x", "unknown")


def ignored(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world, ignored=True)
    world.mail("x")


def expired(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world, store_s=0.1)
    world.mail("x")
    world.clock = iter(range(100_000, 200_000))
    world.intend("cleanup", name="celery.backend_cleanup", expect={}, effects=[])
    world.say("worker-1.9", "started", "cleanup", name="celery.backend_cleanup")
    world.say("worker-1.9", "finished", "cleanup", state="SUCCESS", ignored=True)


def not_json(world: World) -> None:
    world.intend("x")
    begin(world)
    end(world)
    world.record("x", result=b"\x80\x05K\x01.")
    world.mail("x")


def refused_content(world: World) -> None:
    world.intend("x")
    reason = "ContentDisallowed: Refusing to deserialize untrusted content of type pickle (application/x-python)"
    world.say("worker-1", "discarded", "x", reason=reason, content_type="application/x-python")


def unknown_task(world: World) -> None:
    world.intend("x", name="shop.tasks.mail")
    world.say("worker-1", "discarded", "x", reason="NotRegistered: 'shop.tasks.mail'")


def undecodable(world: World) -> None:
    world.intend("x")
    world.say("worker-1", "discarded", "x", reason="DecodeError: no")


def retries(world: World) -> None:
    world.intend("x")
    begin(world)
    world.say("worker-1.7", "finished", "x", state="RETRY")
    world.intend("x")
    assert world.remains
    world.remains["messages"] = ["x"]


def waits(world: World) -> None:
    world.intend("x")
    assert world.remains
    world.remains["messages"] = ["x"]


def cut(world: World, reason: str = "ConnectionResetError: [Errno 104] Connection reset by peer") -> None:
    world.say("worker-1", "disconnected", reason=reason)


def dropped_with_its_broker(world: World) -> None:
    world.intend("x", transient=True)
    cut(world)
    queue(world)


def sent_after_the_cut(world: World) -> None:
    cut(world)
    world.intend("x", transient=True)
    queue(world)


def sent_in_the_instant_of_the_cut(world: World) -> None:
    world.say("worker-1", "disconnected", reason="ConnectionResetError", t=5_000.0)
    world.intend("x", transient=True, t=5_000.0)
    queue(world)


def kept_on_disk_and_cut(world: World) -> None:
    world.intend("x")
    cut(world)
    queue(world)


def transient_in_a_quorum_queue(world: World) -> None:
    dropped_with_its_broker(world)
    queue(world, "quorum")


def grow(world: World, *peaks_kb: int, child: int = 7) -> None:
    """Have a process end tasks, and grow by each to such a peak."""
    for number, peak_kb in enumerate(peaks_kb):
        task = f"before-{child}-{number}"
        world.intend(task, effects=[], expect={})
        world.say(f"worker-1.{child}", "started", task, name="mail")
        world.say(f"worker-1.{child}", "finished", task, state="SUCCESS", peak_kb=peak_kb)
        world.record(task)


def starved(world: World, *peaks_kb: int) -> None:
    grow(world, *(peaks_kb or (50_000, 90_000, 137_000)))
    world.intend("x", effects=[])
    begin(world)
    world.say("worker-1", "exited", child=7, code=-9, out_of_memory=True)
    fail(world, "WorkerLostError")


def starved_by_one_task(world: World) -> None:
    starved(world, 50_000, 51_000)


def grown_and_killed_by_somebody(world: World) -> None:
    grow(world, 50_000, 90_000, 137_000)
    killed_child(world)


TOO_LATE = (
    "PreconditionFailed: (0, 0): (406) PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. "
    "Timeout value used: 1800000 ms. This timeout value can be configured"
)


def came_back_because_it_took_too_long(world: World) -> None:
    world.intend("x")
    begin(world)
    cut(world, TOO_LATE)
    begin(world, 8, redelivered=True)
    end(world)
    end(world, 8)
    twice(world)


def came_back_to_a_hurried_queue(world: World) -> None:
    came_back_because_it_took_too_long(world)
    queue(world, consumer_timeout=1_800_000)


def another_channel_failed(world: World) -> None:
    came_back_while_it_ran(world)
    cut(world, "PreconditionFailed: (0, 0): (406) PRECONDITION_FAILED - unknown delivery tag 3")


def waited_beside_an_idle_worker(world: World, wait_s: int = 9) -> None:
    about = {key: value for key, value in world.lines["worker-1"][1].items() if key not in {"n", "t", "kind"}}
    world.nodes.append("worker-2")
    assert world.remains
    world.remains["alive"] = ["worker-1", "worker-2"]
    world.say("worker-2", "settings", **about)
    for node in ("worker-1", "worker-2"):
        world.say(node, "ready")
    world.intend("x", effects=[])
    world.say("worker-1", "received", "x", name="mail")
    for _ in range(wait_s):
        next(world.clock)
    begin(world)
    end(world)
    world.record("x")


def waited_for_its_time(world: World) -> None:
    waited_beside_an_idle_worker(world)
    received = world.lines["worker-1"][-1]
    received["eta"] = received["t"] + 9.5


class Pair(NamedTuple):
    """A rule's setting, its remedy, and another cause of the same finding."""

    code: str
    provoke: Callable[[World], None]
    to_blame: dict[str, Any]
    """The settings with which the rule holds; `task` has the options of the task."""
    reason: str
    remedy: str
    mended: dict[str, Any]
    """The settings with the remedy."""
    other: Callable[[World], None]
    """Another cause, of which the same settings are not the reason."""


DEDUPLICATE = "worker_deduplicate_successful_tasks"
CANCEL = "worker_cancel_long_running_tasks_on_connection_loss"
DELIVERY = "task_default_delivery_mode"
MEMORY = "worker_max_memory_per_child"
PAIRS = [
    Pair(
        "lost", dropped, LATE, "x-delivery-limit is 2 (queue celery)",
        'Queue("celery", queue_arguments={"x-delivery-limit": -1, "x-queue-type": "quorum"})', LATE,
        dropped_without_a_limit,
    ),
    Pair(
        "lost", full, {}, "x-max-length is 5 (queue celery)",
        'Queue("celery", queue_arguments={"x-max-length": 5, "x-overflow": "reject-publish"})', {}, unlimited,
    ),
    Pair(
        "lost", too_large, {}, "x-max-length-bytes is 5 (queue celery)",
        'Queue("celery", queue_arguments={"x-max-length-bytes": 5, "x-overflow": "reject-publish"})', {}, unlimited,
    ),
    Pair(
        "lost", too_old, {}, "x-message-ttl is 5 (queue celery)", 'Queue("celery", queue_arguments={})', {}, unlimited,
    ),
    Pair(
        "lost", softly_stopped, {"worker_soft_shutdown_timeout": 5.0}, "task_acks_late is False (app)",
        "app.conf.task_acks_late = True", LATE, effect_is_absent,
    ),
    Pair(
        "lost", died_in_mid_task, {}, "task_acks_late is False (app)", "app.conf.task_acks_late = True", LATE,
        effect_is_absent,
    ),
    Pair(
        "lost", died_in_mid_task, {**LATE, "task": {"acks_late": False}}, "task_acks_late is False (task mail)",
        "@app.task(acks_late=True)", LATE, never_began,
    ),
    Pair(
        "failed-unexpectedly", killed_child, LATE, "task_reject_on_worker_lost is None (app)",
        "app.conf.task_reject_on_worker_lost = True", {**LATE, "task_reject_on_worker_lost": True}, raised,
    ),
    Pair(
        "failed-unexpectedly", killed_child, LATE, "task_reject_on_worker_lost is None (app)",
        "app.conf.task_reject_on_worker_lost = True", {**LATE, "task_retry_on_worker_lost": True}, raised,
    ),
    Pair(
        "failed-unexpectedly", killed_child, {}, "task_acks_late is False (app)",
        "app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)",
        {**LATE, "task_reject_on_worker_lost": True}, raised,
    ),
    Pair(
        "failed-unexpectedly", limited_again, {**LATE, "task": {"acks_on_failure_or_timeout": False}},
        "task_acks_on_failure_or_timeout is False (task mail)", "@app.task(acks_on_failure_or_timeout=True)", LATE,
        raised,
    ),
    Pair(
        "failed-unexpectedly", limited_again, {**LATE, "task_acks_on_timeout": False},
        "task_acks_on_timeout is False (app)", "app.conf.task_acks_on_timeout = True",
        {**LATE, "task_acks_on_timeout": True}, limited,
    ),
    Pair(
        "failed-unexpectedly", limited, {"task": {"time_limit": 2.5}}, "task_time_limit is 2.5 (task mail)",
        "@app.task(time_limit=5)", {}, raised,
    ),
    Pair(
        "failed-unexpectedly", softly_limited, {"soft_time_limit": 2}, "task_soft_time_limit is 2 (app)",
        "@app.task(soft_time_limit=4)", {}, raised,
    ),
    Pair(
        "wrong", not_limited, {"pool": "threads", "time_limit": 2}, "worker_pool is 'threads' (worker)",
        "celery worker --pool=prefork", {"pool": "prefork", "time_limit": 2}, not_failed,
    ),
    Pair(
        "wrong", not_limited, {"pool": "gevent", "task": {"soft_time_limit": 2}}, "worker_pool is 'gevent' (worker)",
        "celery worker --pool=prefork", {"pool": "gevent", "task": {"time_limit": 2}}, not_failed,
    ),
    Pair(
        "duplicated", came_back_after_its_result, LATE, f"{DEDUPLICATE} is False (app)",
        f"app.conf.{DEDUPLICATE} = True", {**LATE, DEDUPLICATE: True, CANCEL: True}, had_its_effect_twice,
    ),
    Pair(
        "duplicated", came_back_while_it_ran, LATE, f"{CANCEL} is False (app)", f"app.conf.{CANCEL} = True",
        {**LATE, CANCEL: True}, had_its_effect_twice,
    ),
    Pair(
        "duplicated", came_back_after_a_death, {**LATE, "task": {"reject_on_worker_lost": True}},
        "task_reject_on_worker_lost is True (task mail)", "@app.task(reject_on_worker_lost=False)", {},
        came_back_after_its_workers_death,
    ),
    Pair(
        "duplicated", came_back_after_its_workers_death, LATE, "task_acks_late is True (app)",
        "app.conf.task_acks_late = False", {}, had_its_effect_twice,
    ),
    Pair(
        "unknown", unconfirmed, {}, "confirm_publish is False (sender)",
        'app.conf.broker_transport_options = {"confirm_publish": True}', {}, unanswered,
    ),
    Pair(
        "unknown", ignored, {"task": {"ignore_result": True}}, "task_ignore_result is True (task mail)",
        "@app.task(ignore_result=False)", {}, not_json,
    ),
    Pair(
        "unknown", expired, {}, "result_expires is 86400.0 (app)", "app.conf.result_expires = None",
        {"result_expires": None}, not_json,
    ),
    Pair(
        "lost", refused_content, {}, "accept_content is ['json'] (app)",
        'app.conf.accept_content = ["json", "pickle"]', {}, undecodable,
    ),
    Pair(
        "lost", unknown_task, {}, "imports is [] (app)", 'app.conf.imports = ("shop.tasks",)',
        {"tasks": ["shop.tasks.mail"]}, undecodable,
    ),
    Pair(
        "pending", retries, {"task": {"max_retries": None}}, "max_retries is None (task mail)",
        "@app.task(max_retries=3)", {}, waits,
    ),
    Pair(
        "lost", dropped_with_its_broker, {DELIVERY: 1}, f"{DELIVERY} is 1 (app)", f"app.conf.{DELIVERY} = 2",
        {DELIVERY: 2}, sent_after_the_cut,
    ),
    Pair(
        "lost", dropped_with_its_broker, {DELIVERY: 1}, f"{DELIVERY} is 1 (app)", f"app.conf.{DELIVERY} = 2",
        {DELIVERY: 2}, sent_in_the_instant_of_the_cut,
    ),
    Pair(
        "lost", dropped_with_its_broker, {DELIVERY: "transient"}, f"{DELIVERY} is 'transient' (app)",
        f"app.conf.{DELIVERY} = 2", {DELIVERY: 2}, kept_on_disk_and_cut,
    ),
    Pair(
        "lost", dropped_with_its_broker, {DELIVERY: "1"}, f"{DELIVERY} is '1' (app)", f"app.conf.{DELIVERY} = 2",
        {DELIVERY: 2}, transient_in_a_quorum_queue,
    ),
    Pair(
        "failed-unexpectedly", starved, {}, f"{MEMORY} is None (app)", f"app.conf.{MEMORY} = 130000",
        {MEMORY: 130_000}, grown_and_killed_by_somebody,
    ),
    Pair(
        "failed-unexpectedly", starved, {MEMORY: 500_000}, f"{MEMORY} is 500000 (app)", f"app.conf.{MEMORY} = 130000",
        {MEMORY: 90_000}, starved_by_one_task,
    ),
    Pair(
        "duplicated", came_back_to_a_hurried_queue, LATE, "x-consumer-timeout is 1800000 (queue celery)",
        'Queue("celery", queue_arguments={"x-consumer-timeout": 3600000})', LATE, came_back_because_it_took_too_long,
    ),
    Pair(
        "duplicated", came_back_because_it_took_too_long, LATE, "consumer_timeout is 1800000 (broker)",
        "consumer_timeout = 3600000", LATE, another_channel_failed,
    ),
    Pair(
        "hoarded", waited_beside_an_idle_worker, LATE, "worker_prefetch_multiplier is 4 (app)",
        "app.conf.worker_prefetch_multiplier = 1", {**LATE, "prefetch_multiplier": 1}, waited_for_its_time,
    ),
    Pair(
        "hoarded", waited_beside_an_idle_worker, {}, "worker_prefetch_multiplier is 4 (app)",
        "app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)", {"prefetch_multiplier": 1},
        waited_for_its_time,
    ),
]  # fmt: skip
IDS = [f"{pair.code}: {pair.reason}" for pair in PAIRS]
NONE = Reason(setting=None, count=1, tasks=("x",))


def audited(world: World, provoke: Callable[[World], None], given: dict[str, Any]) -> Audit:
    settings(world, **given)
    provoke(world)
    return world.audit()


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_each_setting_that_is_to_blame_is_named_with_its_value_and_what_to_change(world: World, pair: Pair) -> None:
    (reason,) = finding(audited(world, pair.provoke, pair.to_blame), pair.code).reasons
    assert (reason.text, reason.remedy) == (pair.reason, pair.remedy)
    assert (reason.count, reason.tasks) == (1, ("x",))
    assert reason.seen
    assert Reason.from_json(asdict(reason)) == reason
    assert reason.price
    assert reason.source


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_of_another_cause_the_same_setting_is_not_the_reason(world: World, pair: Pair) -> None:
    reasons = [one for found in audited(world, pair.other, pair.to_blame).findings for one in found.reasons]
    assert pair.reason not in {one.text for one in reasons}


@pytest.mark.parametrize("pair", [one for one in PAIRS if one.mended not in (one.to_blame, {})])
def test_with_its_remedy_a_setting_is_not_the_reason(world: World, pair: Pair) -> None:
    found = audited(world, pair.provoke, pair.mended).findings
    assert pair.reason not in {one.text for two in found for one in two.reasons}


def test_that_no_setting_is_known_to_be_the_reason_is_said_of_what_failed_alone(world: World) -> None:
    effect_is_absent(world)
    assert finding(world.audit(), "lost").reasons == (NONE,)
    assert "reason: no setting is known to be the reason" in world.audit().text()


def test_without_settings_nothing_is_said_of_them(world: World) -> None:
    world.lines.clear()
    world.fine("a")
    died_in_mid_task(world)
    found = world.audit()
    assert finding(found, "lost").reasons == ()
    assert "reason" not in found.text()
    assert "reasons" not in found.to_json()["findings"][0]


def test_workers_that_differ_leave_the_reason_open_unless_one_of_them_had_the_task(world: World) -> None:
    world.nodes.append("worker-2")
    world.say("worker-2", "settings", **{**DEFAULTS, **LATE})
    died_in_mid_task(world)
    (reason,) = finding(world.audit(), "lost").reasons
    assert reason.setting == "task_acks_late"
    world.lines.pop("worker-1.7")
    world.say("worker-2", "started", "x", name="mail")
    assert finding(world.audit(), "lost").reasons == (NONE,)


@pytest.mark.parametrize("key", ["mail", "*"])
def test_an_option_that_annotations_set_is_changed_there(world: World, key: str) -> None:
    """A decorator's option would change nothing: Celery lets annotations win."""
    settings(world, {"acks_late": False, "annotated": {"acks_late": key}}, **LATE)
    died_in_mid_task(world)
    (reason,) = finding(world.audit(), "lost").reasons
    assert reason.text == f"task_acks_late is False (task_annotations of {key})"
    assert reason.remedy == f'app.conf.task_annotations["{key}"].update(acks_late=True)'


def test_a_limit_that_annotations_set_is_changed_there(world: World) -> None:
    settings(world, {"time_limit": 2, "annotated": {"time_limit": "mail"}})
    limited(world)
    (reason,) = finding(world.audit(), "failed-unexpectedly").reasons
    assert reason.remedy == 'app.conf.task_annotations["mail"].update(time_limit=4)'


def test_endless_retries_that_annotations_set_are_ended_there(world: World) -> None:
    settings(world, {"max_retries": None, "annotated": {"max_retries": "*"}})
    retries(world)
    waits(world)
    (reason,) = finding(world.audit(), "pending").reasons
    assert reason.remedy == 'app.conf.task_annotations["*"].update(max_retries=3)'


@pytest.mark.parametrize("annotated", [5, None, [], {"other": "mail"}])
def test_what_is_not_said_to_be_annotated_is_an_option_of_the_task(world: World, annotated: object) -> None:
    settings(world, {"acks_late": False, "annotated": annotated}, **LATE)
    died_in_mid_task(world)
    assert finding(world.audit(), "lost").reasons[0].remedy == "@app.task(acks_late=True)"


def test_tasks_are_grouped_by_their_reason_that_of_the_most_first(world: World) -> None:
    settings(world, {"acks_late": False}, **LATE)
    for task in "abc":
        world.intend(task)
        world.say("worker-1.7", "started", task, name="mail")
    world.intend("z", name="pay")
    world.say("worker-1.7", "started", "z", name="pay")
    found = finding(world.audit(), "lost")
    assert [(reason.setting, reason.count, reason.tasks) for reason in found.reasons] == [
        ("task_acks_late", 3, ("a", "b", "c")),
        (None, 1, ("z",)),
    ]
    assert found.reason_lines[0] == "reason: task_acks_late is False (task mail) (3 of 4)"
    assert found.reason_lines[1] == "remedy: @app.task(acks_late=True)"
    assert found.reason_lines[-1] == "reason: no setting is known to be the reason (1 of 4)"


def test_a_chord_that_waits_for_ever_is_explained_by_its_member(world: World) -> None:
    settings(world, {"ignore_result": True})
    steps = [{"task": "body", "name": "sum", "way": "body"}]
    world.intend("x", expect={}, effects=[], steps=steps, follow=["body"])
    begin(world)
    end(world, ignored=True)
    # Another chord waits for a member in the broker.
    world.intend("y", expect={}, effects=[], steps=[{**steps[0], "task": "other"}], follow=["other"])
    assert world.remains
    world.remains["messages"] = ["y"]
    (reason,) = finding(world.audit(), "chords-hopeless").reasons
    assert (reason.text, reason.tasks) == ("task_ignore_result is True (task mail)", ("x",))


def test_a_member_that_two_chords_wait_for_in_vain_counts_once_in_their_reason(world: World) -> None:
    settings(world, {"ignore_result": True})
    steps = [{"task": body, "name": "sum", "way": "body"} for body in ("first", "second")]
    world.intend("x", expect={}, effects=[], steps=steps, follow=["first", "second"])
    begin(world)
    end(world, ignored=True)
    found = finding(world.audit(), "chords-hopeless")
    assert (found.count, found.tasks) == (2, ("first", "second"))
    (reason,) = found.reasons
    assert (reason.setting, reason.count, reason.tasks) == ("task_ignore_result", 1, ("x",))


def test_all_members_that_a_chord_waits_for_in_vain_count_in_its_reason(world: World) -> None:
    settings(world, {"ignore_result": True})
    members = [f"m{number}" for number in range(5)]
    for member in members:
        step = {"task": "body", "name": "sum", "way": "body"}
        world.intend(member, expect={}, effects=[], steps=[step], follow=["body"])
        world.say("worker-1.7", "started", member, name="mail", retries=0)
        world.say("worker-1.7", "finished", member, state="SUCCESS", ignored=True)
    found = finding(world.audit(), "chords-hopeless")
    assert "sum (body) waits for m0, m1, m2 and 2 more" in found.text
    (reason,) = found.reasons
    assert (reason.setting, reason.count, reason.tasks) == ("task_ignore_result", 5, ("m0", "m1", "m2"))


def test_only_tasks_that_waited_for_more_than_a_second_count_as_messages_taken_ahead(world: World) -> None:
    settings(world)
    waited_beside_an_idle_worker(world)
    world.intend("y", effects=[])
    world.say("worker-1", "received", "y", name="mail")
    world.say("worker-1.7", "started", "y", name="mail", retries=0)
    world.say("worker-1.7", "finished", "y", state="SUCCESS")
    # It is delivered again much later.
    world.say("worker-1.7", "started", "y", name="mail", retries=0)
    world.say("worker-1.7", "finished", "y", state="SUCCESS")
    world.record("y")
    (reason,) = finding(world.audit(), "hoarded").reasons
    assert (reason.setting, reason.count, reason.tasks) == ("worker_prefetch_multiplier", 1, ("x",))


def test_a_broadcast_that_runs_once_on_each_worker_did_not_come_back(world: World) -> None:
    settings(world, None, **LATE)
    world.nodes.append("worker-2")
    world.say("worker-2", "settings", **{**DEFAULTS, **LATE})
    world.intend("x")
    for process in ("worker-1.7", "worker-2.7"):
        world.say(process, "started", "x", name="mail", retries=0)
        world.say(process, "finished", "x", state="SUCCESS")
    twice(world)
    assert finding(world.audit(), "duplicated").reasons == (NONE,)


def test_a_process_that_had_too_little_memory_later_says_nothing_of_the_task_that_died_before(world: World) -> None:
    """The number of a process that was killed is given to a later one."""
    settings(world)
    grow(world, 50_000, 90_000, 137_000)
    killed_child(world)
    world.say("worker-1", "exited", child=7, code=-9, out_of_memory=True)
    (reason,) = finding(world.audit(), "failed-unexpectedly").reasons
    assert reason.setting == "task_acks_late"


def test_of_two_processes_that_had_too_little_memory_for_a_task_the_last_one_counts(world: World) -> None:
    settings(world)
    grow(world, 50_000, 90_000, 137_000)
    grow(world, 50_000, 90_000, 187_000, child=8)
    world.intend("x", effects=[])
    for child in (7, 8):
        begin(world, child)
        world.say("worker-1", "exited", child=child, code=-9, out_of_memory=True)
    fail(world, "WorkerLostError")
    (reason,) = finding(world.audit(), "failed-unexpectedly").reasons
    assert reason.remedy == f"app.conf.{MEMORY} = 180000"


def test_a_process_that_somebody_killed_after_one_had_too_little_memory_died_of_that(world: World) -> None:
    settings(world)
    grow(world, 50_000, 90_000, 137_000)
    world.intend("x", effects=[])
    begin(world)
    world.say("worker-1", "exited", child=7, code=-9, out_of_memory=True)
    begin(world, 8)
    die(world, 8)
    fail(world, "WorkerLostError")
    (reason,) = finding(world.audit(), "failed-unexpectedly").reasons
    assert reason.setting == "task_acks_late"


def test_an_app_that_never_rests_is_explained_by_the_task_that_retries(world: World) -> None:
    settings(world, {"max_retries": None})
    retries(world)
    world.intend("y")
    world.execute("y", state="RETRY")
    world.execute("y")
    assert world.remains
    # One that ended after a retry does not ask any more, and one that waits has not asked.
    world.remains["messages"] = ["x", "z"]
    world.intend("z")
    world.remains["settled"] = {"how": "limit", "waited_s": 9.0, "sending": [["mail", "mail", 40]]}
    (reason,) = finding(world.audit(), "restless").reasons
    assert (reason.text, reason.count, reason.tasks) == ("max_retries is None (task mail)", 1, ("x",))


def test_a_task_may_not_be_run_twice_where_that_is_promised(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE, effects=Effects.AT_LEAST_ONCE)
    (reason,) = finding(audited(world, came_back_after_its_workers_death, LATE), "duplicated").reasons
    assert reason.text == "task_acks_late is True (app)"


def test_a_finding_is_read_as_it_was_written(world: World) -> None:
    found = finding(audited(world, refused_content, {}), "lost")
    assert found.reasons
    assert Finding.from_json(found.to_json()) == found
    without = replace(found, reasons=())
    assert "reasons" not in without.to_json()
    assert Finding.from_json(without.to_json()) == without


def test_only_heads_of_workers_journals_are_believed(world: World) -> None:
    died_in_mid_task(world)
    world.say("worker-1", "received", "x", name="mail")
    world.say("worker-1", "settings", **{**DEFAULTS, **LATE})
    (reason,) = finding(world.audit(), "lost").reasons
    assert reason.text == "task_acks_late is False (app)"


def words(rule: Rule) -> str:
    """Return the rule as a row of the page for users."""
    remedies = " or ".join(f"`{line}`" for line in rule.blamed.remedies)
    codes = ", ".join(f"`{code}`" for code in sorted(rule.codes))
    setting = f"`{rule.blamed.setting}`: {rule.value}"
    return f"| {codes} | {rule.seen} | {setting} | {remedies} | {rule.price} | {rule.source} |"


def test_the_page_for_users_has_each_rule_and_no_other() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [words(rule) for rule in RULES]


def test_each_rule_has_a_pair() -> None:
    explained = {(pair.code, pair.reason.partition(" ")[0]) for pair in PAIRS}
    for rule in RULES:
        settings_of = {rule.blamed.setting, "task_acks_on_timeout"}
        assert any(code in rule.codes and setting in settings_of for code, setting in explained), rule.seen


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.DUPLICATED, Fate.WRONG, Fate.UNRECORDED])
def test_each_fate_that_breaks_a_promise_can_have_a_reason(fate: Fate) -> None:
    assert any(fate.value in rule.codes for rule in RULES)


def test_a_remark_has_no_reason(world: World) -> None:
    world.promise = Promise(effects=Effects.AT_LEAST_ONCE)
    found = audited(world, came_back_after_its_workers_death, LATE)
    assert found.verdict is Verdict.PASS
    assert not any(one.reasons for one in found.findings)


def test_of_very_many_causes_those_of_the_most_tasks_are_explained(world: World) -> None:
    for number in range(50):
        world.intend(f"single-{number:02}", name=f"single{number:02}")
    for task in ("twin-1", "twin-2"):
        world.intend(task, name="twin")
    for task in [entry["task"] for entry in world.lines["producer"] if entry["kind"] == "intended"]:
        world.say("worker-1.7", "started", task, retries=0)
    lost = finding(world.audit(), "lost")
    assert lost.count == 52
    assert sum(reason.count for reason in lost.reasons) == 51
