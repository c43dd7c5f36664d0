"""The table of rules that say why a promise was broken.

Each rule names what has to be seen of a task, the setting that is to blame, and the values with which it is.
docs/reasons.md shows the same table to users.
"""

from collections.abc import Callable
from dataclasses import dataclass

from harness.audit.blamed_settings import (
    Blamed,
    Case,
    OfApp,
    OfContent,
    OfDeliveryLimit,
    OfImports,
    OfLimit,
    OfPool,
    OfQueue,
    OfSender,
    OfTask,
    OfTaskAlone,
    off,
    on,
)
from harness.audit.blamed_values import OfConsumerTimeout, OfDeliveryMode, OfMemory, OfPrefetch
from harness.records.finding_codes import Code


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One row of the table."""

    codes: frozenset[str]
    """The codes of the findings that it explains."""
    seen: str
    """What has to be seen of a task, as a clause."""
    holds: Callable[[Case], bool]
    """Whether that was seen."""
    blamed: Blamed
    value: str
    """The value with which the setting is to blame, in words."""
    price: str
    source: str


def _is_unended(case: Case) -> bool:
    return case.ending is None and case.starts > 0 and case.is_cut_short


_LOST = frozenset({Code.LOST})
_LOST_OR_AWAITED = _LOST | {Code.CHORDS_HOPELESS}
_FAILED = frozenset({Code.WRONG, Code.FAILED_UNEXPECTEDLY})
_DUPLICATED = frozenset({Code.DUPLICATED})
_CONFIGURATION = "Celery's documentation, Configuration and defaults"
_BEGINS_AGAIN = "a task whose worker dies begins once more: unless it is idempotent, it does again what it had done"
_BEGINS_EACH_TIME = (
    "a task that kills its process begins again each time, on a classic queue without end: unless it is idempotent, it "
    "does again what it had done"
)
RULES = (
    Rule(
        codes=_LOST,
        seen="it began more often than its quorum queue allows, and the broker dropped it",
        holds=_is_unended,
        blamed=OfDeliveryLimit(),
        value="any",
        price="a task that kills its process comes back without end; the queue has to be deleted and declared anew",
        source="RabbitMQ's documentation, Quorum Queues: Poison Message Handling",
    ),
    *(
        Rule(
            codes=_LOST,
            seen=f"no worker ever began it, and its queue {words}",
            holds=lambda case: case.starts == 0 and case.ending is None and case.outcome == "accepted",
            blamed=OfQueue(argument, change),
            value="any",
            price=f"{price}; the queue has to be deleted and declared anew",
            source=f"RabbitMQ's documentation, {chapter}",
        )
        for argument, words, change, price, chapter in (
            (
                "x-message-ttl",
                "keeps a message for a limited time",
                {"x-message-ttl": None},
                "a message waits for any time",
                "Time-to-Live and Expiration",
            ),
            (
                "x-max-length",
                "has room for a limited number of messages: a full one drops its oldest, and tells no sender",
                {"x-overflow": "reject-publish"},
                "who sends to the full queue is refused, learns it with confirm_publish alone, and has to send again",
                "Queue Length Limit",
            ),
            (
                "x-max-length-bytes",
                "has room for a limited number of bytes: a full one drops its oldest, and tells no sender",
                {"x-overflow": "reject-publish"},
                "who sends to the full queue is refused, learns it with confirm_publish alone, and has to send again",
                "Queue Length Limit",
            ),
        )
    ),
    Rule(
        codes=_LOST,
        seen=(
            "no worker ever began it, it was sent as transient, which a broker that stops does not keep, and then a "
            "worker lost its connection to the broker"
        ),
        holds=lambda case: case.starts == 0 and case.ending is None and case.is_transient,
        blamed=OfDeliveryMode(),
        value="1 or transient",
        price="the broker writes each message to its disk",
        source=f"{_CONFIGURATION}: task_default_delivery_mode",
    ),
    Rule(
        codes=_LOST_OR_AWAITED,
        seen="a soft shutdown interrupted it after its message was acknowledged; its row says RETRY for ever",
        holds=lambda case: _is_unended(case) and case.status == "RETRY" and not case.is_retried,
        blamed=OfTask("acks_late", off, {"acks_late": True}),
        value="False",
        price=_BEGINS_AGAIN,
        source="Celery's documentation, Workers Guide: Soft Shutdown",
    ),
    Rule(
        codes=_LOST_OR_AWAITED,
        seen="it began, its worker died or was stopped, and its message had been acknowledged before it began",
        holds=_is_unended,
        blamed=OfTask("acks_late", off, {"acks_late": True}),
        value="False",
        price=_BEGINS_AGAIN,
        source=f"{_CONFIGURATION}: task_acks_late",
    ),
    Rule(
        codes=_FAILED,
        seen="the kernel killed its pool process for memory, and that had grown by half in the tasks before",
        holds=lambda case: case.ending == "FAILURE" and case.error == "WorkerLostError" and case.is_starved,
        blamed=OfMemory(),
        value="not set, or above what the process had",
        price="a process is replaced more often, which takes time",
        source=f"{_CONFIGURATION}: worker_max_memory_per_child",
    ),
    Rule(
        codes=_FAILED,
        seen="its pool process was killed or ended (WorkerLostError), with late acknowledgement",
        holds=lambda case: case.ending == "FAILURE" and case.error == "WorkerLostError",
        blamed=OfTask(
            "reject_on_worker_lost",
            off,
            {"reject_on_worker_lost": True},
            given={"acks_late": on, "retry_on_worker_lost": off},
        ),
        value="False or None",
        price=_BEGINS_EACH_TIME,
        source="celery/celery#1628",
    ),
    Rule(
        codes=_FAILED,
        seen=(
            "its pool process was killed or ended (WorkerLostError), and its message had been acknowledged before it "
            "began"
        ),
        holds=lambda case: case.ending == "FAILURE" and case.error == "WorkerLostError",
        blamed=OfTask(
            "acks_late",
            off,
            {"acks_late": True, "reject_on_worker_lost": True},
            given={"retry_on_worker_lost": off},
        ),
        value="False",
        price=_BEGINS_EACH_TIME,
        source="celery/celery#1628",
    ),
    Rule(
        codes=_FAILED | {Code.LEFT_AFTER_END},
        seen="it reached its hard time limit, and its message came back",
        holds=lambda case: case.error == "TimeLimitExceeded" and case.redelivered,
        blamed=OfTask(
            "acks_on_failure_or_timeout",
            off,
            {"acks_on_failure_or_timeout": True},
            given={"acks_late": on},
            unless="acks_on_timeout",
        ),
        value="False",
        price="a task that reaches its limit does not run again",
        source="celery/celery#10128",
    ),
    Rule(
        codes=_FAILED,
        seen="it reached its hard time limit",
        holds=lambda case: case.ending == "FAILURE" and case.error == "TimeLimitExceeded",
        blamed=OfLimit("time_limit"),
        value="less than the task takes",
        price="a task that hangs keeps its process for longer",
        source="Celery's documentation, Workers Guide: Time Limits",
    ),
    Rule(
        codes=_FAILED,
        seen="it reached its soft time limit",
        holds=lambda case: case.ending == "FAILURE" and case.error == "SoftTimeLimitExceeded",
        blamed=OfLimit("soft_time_limit"),
        value="less than the task takes",
        price="a task that hangs keeps its process for longer",
        source="Celery's documentation, Workers Guide: Time Limits",
    ),
    Rule(
        codes=frozenset({Code.WRONG}),
        seen="it succeeded, though its time limit was expected to end it",
        holds=lambda case: case.ending == "SUCCESS" and "TimeLimitExceeded" in (case.expect_error or ""),
        blamed=OfPool(),
        value="threads or solo; for a soft limit any but prefork",
        price="each process needs memory of its own",
        source="celery/celery#9203",
    ),
    Rule(
        codes=_DUPLICATED,
        seen="its message came back because the broker waited no longer for the acknowledgement",
        holds=lambda case: case.redelivered and case.overdue_ms is not None,
        blamed=OfConsumerTimeout(),
        value="less than the task takes; the broker's own consumer_timeout where the queue has none",
        price="the message of a worker that hangs comes back later",
        source="RabbitMQ's documentation, Consumers: Delivery Acknowledgement Timeout",
    ),
    Rule(
        codes=_DUPLICATED,
        seen="its message came back after its result was stored",
        holds=lambda case: case.redelivered and case.stored_before,
        blamed=OfApp("worker_deduplicate_successful_tasks", off, True, given={"acks_late": on}),  # noqa: FBT003
        value="False",
        price="for each message that comes back, the worker asks for the result",
        source=f"{_CONFIGURATION}: worker_deduplicate_successful_tasks",
    ),
    Rule(
        codes=_DUPLICATED,
        seen="its pool process died, and its message, acknowledged late, came back: it did again what it had done",
        holds=lambda case: case.redelivered and case.code is not None,
        blamed=OfTask("reject_on_worker_lost", on, {"reject_on_worker_lost": False}, given={"acks_late": on}),
        value="True",
        price="such a task ends as a FAILURE, WorkerLostError, half done; to keep both, make its effect idempotent",
        source=f"{_CONFIGURATION}: task_reject_on_worker_lost",
    ),
    Rule(
        codes=_DUPLICATED,
        seen="its message came back while it ran, and no process died: the connection to the broker was lost",
        holds=lambda case: case.redelivered and not case.is_cut_short and not case.is_retried,
        blamed=OfApp(
            "worker_cancel_long_running_tasks_on_connection_loss",
            off,
            True,  # noqa: FBT003 - the value of the setting.
            given={"acks_late": on},
        ),
        value="False",
        price="a lost connection ends the tasks that run, and they begin again",
        source="celery/celery#4671",
    ),
    Rule(
        codes=_DUPLICATED,
        seen="its message came back because its worker died or was stopped before it acknowledged it",
        holds=lambda case: case.redelivered and case.is_cut_short,
        blamed=OfTask("acks_late", on, {"acks_late": False}),
        value="True",
        price="a task whose worker dies is then lost; to keep both, make its effect idempotent",
        source="Celery's documentation, Tasks: idempotent tasks and acks_late",
    ),
    Rule(
        codes=frozenset({Code.UNKNOWN}),
        seen="it was sent without a confirm, and no worker received it",
        holds=lambda case: case.outcome == "unconfirmed" and case.ending is None and case.starts == 0,
        blamed=OfSender(),
        value="False",
        price="each send waits for the broker's answer",
        source="celery/celery#5410",
    ),
    Rule(
        codes=frozenset({Code.UNKNOWN, Code.CHORDS_HOPELESS}),
        seen="it succeeded, and left no result: none to compare, and none for its chord",
        holds=lambda case: case.ending == "SUCCESS" and case.ignored,
        blamed=OfTask("ignore_result", on, {"ignore_result": False}),
        value="True",
        price="each execution writes a row",
        source="Celery's documentation, Canvas: Important Notes on chords",
    ),
    Rule(
        codes=frozenset({Code.UNKNOWN}),
        seen="its row was cleaned up before its result was compared",
        holds=lambda case: case.row_expired and case.expects_result,
        blamed=OfApp("result_expires", on, None),
        value="less than the run took",
        price="rows stay until somebody deletes them",
        source=f"{_CONFIGURATION}: result_expires",
    ),
    Rule(
        codes=frozenset({Code.LOST, Code.UNRECORDED}),
        seen="a worker refused the type of its content, and discarded it",
        holds=lambda case: (case.discarded or "").startswith("ContentDisallowed"),
        blamed=OfContent(),
        value="without that type",
        price="who can write to the broker can run code in the worker, if it is pickle",
        source="Celery's documentation, Security: Serializers",
    ),
    Rule(
        codes=_FAILED | {Code.LOST, Code.UNRECORDED},
        seen="a worker did not know the task (NotRegistered)",
        holds=lambda case: case.error == "NotRegistered" or (case.discarded or "").startswith("NotRegistered"),
        blamed=OfImports(),
        value="without the module of the task",
        price="none",
        source=f"{_CONFIGURATION}: imports",
    ),
    Rule(
        codes=frozenset({Code.PENDING, Code.RESTLESS}),
        seen="it asks to run again, and never ends",
        holds=lambda case: case.is_retried and case.ending is None,
        blamed=OfTaskAlone("max_retries", lambda value: value is None, 3),
        value="None",
        price="after the third retry it ends as a FAILURE",
        source="Celery's documentation, Tasks: max_retries",
    ),
    Rule(
        codes=frozenset({Code.HOARDED}),
        seen="it waited in a worker, while a process of another one had nothing to do",
        holds=lambda case: case.starts > 0,
        blamed=OfPrefetch(),
        value="any but 1",
        price=f"a worker asks the broker for each message; {_BEGINS_AGAIN}",
        source="Celery's documentation, Optimizing: Prefetch Limits",
    ),
)
"""The table of rules, special ones before general ones."""
