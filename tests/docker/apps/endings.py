"""An app whose tasks end in every way there is. Its settings and its queue's arguments come from the environment."""

import fcntl
import json
import os
import signal
import struct
import sys
import termios
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import Celery, Task, chord
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.signals import after_task_publish
from kombu import Exchange, Queue
from kombu.common import Broadcast

RUN = Path(os.environ["HARNESS_RUN"])

app = Celery("endings")
app.conf.update(
    task_acks_late=True,
    result_chord_retry_interval=0.2,
    worker_prefetch_multiplier=1,
    task_queues=[
        Queue(
            "celery",
            Exchange("celery", type=os.environ.get("EXCHANGE", "direct")),
            routing_key="celery",
            queue_arguments=json.loads(os.environ.get("ARGUMENTS", "null")),
        ),
        Broadcast("news"),
    ],
)
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))


def have_effect(task: Task, key: str) -> None:
    """Leave a trace outside of Celery: a line in a file of effects, in one write."""
    line = json.dumps({"t": time.time(), "kind": "row", "key": key, "task": task.request.id}) + "\n"
    with (RUN / "effects" / f"app-{os.getpid()}.jsonl").open("a") as file:
        file.write(line)


def count_run(task: Task) -> int:
    """How many times this task has begun, this time included."""
    path = RUN / "app" / f"runs-{task.request.id}"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def wait_accepted(timeout_s: float = 10.0) -> None:
    """Wait until the parent process has read that this one accepted its task.

    Celery gives a task to another process if the first one dies before that, even a task that is acknowledged early.
    """
    queue = getattr(current_process(), "outq", None)
    if queue is None:
        return  # The solo pool runs tasks in the process that accepts them.
    pipe = queue._writer.fileno()  # noqa: SLF001 - a child is not told otherwise what its parent has read.
    ends_s = time.monotonic() + timeout_s
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        if time.monotonic() > ends_s:
            raise TimeoutError("the parent process does not read")
        time.sleep(0.001)


def die(how: str) -> None:
    """End this process, or have it ended."""
    wait_accepted()
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "os._exit":
        os._exit(3)
    elif how == "sys.exit":
        sys.exit(3)
    time.sleep(60)


@app.task(bind=True, name="work")
def work(self: Task, key: str, pause_s: float = 0.0, effects: int = 1) -> str:
    """Do what is to be done, once."""
    time.sleep(pause_s)
    for _ in range(effects):
        have_effect(self, key)
    return "done"


def work_mortal(task: Task, key: str, how: str, times: int, effects: int = 1) -> str:
    """Have the effect; die of it in the first executions."""
    for _ in range(effects):
        have_effect(task, key)
    if count_run(task) <= times:
        die(how)
    return "done"


@app.task(bind=True, name="mortal", reject_on_worker_lost=True)
def mortal(self: Task, **how: Any) -> str:
    """Come back to life."""
    return work_mortal(self, **how)


@app.task(bind=True, name="mourned")
def mourned(self: Task, **how: Any) -> str:
    """Die for good: the parent process records a failure."""
    return work_mortal(self, **how)


@app.task(bind=True, name="limited", time_limit=1, acks_on_failure_or_timeout=False)
def limited(self: Task, **how: Any) -> str:
    """Be killed by the hard limit, and delivered again."""
    return work_mortal(self, **how)


@app.task(bind=True, name="limited_for_good", time_limit=1)
def limited_for_good(self: Task, **how: Any) -> str:
    """Be killed by the hard limit."""
    return work_mortal(self, **how)


@app.task(bind=True, name="warned", soft_time_limit=0.5)
def warned(self: Task, key: str, *, heed: bool) -> str:
    """Be told of the soft limit, and end as it demands or in an orderly way."""
    have_effect(self, key)
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        if not heed:
            raise
    return "done"


@app.task(name="brief", time_limit=4)
def brief(pause_s: float) -> str:
    """Take longer than the hard limit, which is too low."""
    time.sleep(pause_s)
    return "done"


@app.task(name="hurried", soft_time_limit=4)
def hurried(pause_s: float) -> str:
    """Take longer than the soft limit, which is too low."""
    time.sleep(pause_s)
    return "done"


@app.task(name="forgotten", ignore_result=True)
def forgotten() -> str:
    """Return what nobody keeps."""
    return "done"


@app.task(bind=True, name="early", acks_late=False)
def early(self: Task, **how: Any) -> str:
    """Be acknowledged before it begins."""
    return work_mortal(self, **how)


@app.task(bind=True, name="swallow", max_retries=3)
def swallow(self: Task, key: str, pause_s: float, effects: int) -> str:
    """Swallow the exception of its own retry, so that it succeeds and runs once more."""
    if self.request.retries:
        time.sleep(pause_s)
        for _ in range(effects):
            have_effect(self, key)
        return "again"
    have_effect(self, key)
    try:
        self.retry(countdown=0.5)
    except Exception:  # noqa: BLE001 - the mistake that this task is about.
        return "done"
    return "never"


@app.task(bind=True, name="resend")
def resend(self: Task, key: str, pause_s: float) -> str:
    """Send itself once more under its own id, and succeed."""
    if count_run(self) == 1:
        self.apply_async(kwargs={"key": key, "pause_s": pause_s}, task_id=self.request.id)
    else:
        time.sleep(pause_s)
    have_effect(self, key)
    return "done"


@app.task(bind=True, name="moody")
def moody(self: Task, *, fails: bool) -> str:
    """Succeed, and in a second run perhaps not."""
    if count_run(self) > 1 and fails:
        raise RuntimeError("the second run failed")
    return "done"


@app.task(name="reload")
def reload(pause_s: float, *, fails: bool) -> str:
    """Be run by all workers: the second one takes longer, and may fail."""
    if os.environ["HARNESS_NODE"] == "worker-2":
        time.sleep(pause_s)
        if fails:
            raise RuntimeError("cannot reload")
    return "done"


@app.task(name="announce")
def announce(pause_s: float, *, fails: bool) -> None:
    """Have all workers reload."""
    reload.apply_async(kwargs={"pause_s": pause_s, "fails": fails}, queue="news")


@app.task(bind=True, name="requeue")
def requeue(self: Task, times: int) -> str:
    """Put its own message back into the queue."""
    if count_run(self) <= times:
        time.sleep(0.1)
        raise Reject("not now", requeue=True)
    return "done"


@app.task(name="give")
def give(what: str) -> Any:
    """Return a value of some kind, or raise an error."""
    if what == "error":
        raise ValueError("this one")
    return {"tuple": (1, 2), "float": 1.0, "decimal": Decimal("1.10"), "flag": True, "long": ["x" * 5_000]}[what]


@app.task(name="gather")
def gather(key: str) -> None:
    """Send a chord. What unlocks it dies when it has sent the body, and is delivered again."""
    chord([give.s("float"), give.s("flag")], body.s(key))()


@app.task(name="gather_nothing")
def gather_nothing(key: str) -> None:
    """Send a chord with a member whose result nobody keeps."""
    chord([give.s("float"), forgotten.s()], body.s(key))()


@app.task(bind=True, name="body")
def body(self: Task, values: list[Any], key: str) -> int:
    """Have the effect."""
    have_effect(self, key)
    return len(values)


@after_task_publish.connect(sender="body")
def die_once(**_: Any) -> None:
    """Kill the process that has sent the body of a chord, the first time."""
    if count_run(app.current_worker_task) == 1:
        die("SIGKILL")


@app.task(bind=True, name="retrying", max_retries=None)
def retrying(self: Task, key: str, times: int, countdown: float) -> str:
    """Ask to run again, so many times."""
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    have_effect(self, key)
    return "done"


@app.task(bind=True, name="rated", rate_limit="2/s")
def rated(self: Task, key: str) -> str:
    """Run no more than twice a second."""
    have_effect(self, key)
    return "done"


@app.task(name="poll")
def poll() -> None:
    """Send itself anew, for ever."""
    poll.apply_async(countdown=0.3)


@app.task(name="hand_on")
def hand_on(name: str, kwargs: dict[str, Any], options: dict[str, Any]) -> None:
    """Send another task."""
    app.send_task(name, kwargs=kwargs, **options)
