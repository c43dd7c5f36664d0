"""Canvas of every shape, and what Celery itself makes of it: `start` sends one by its name."""

import os
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, chain, chord, group
from celery.canvas import chunks, xmap
from celery.exceptions import Ignore
from celery.result import AsyncResult

app = Celery("shapes")
app.conf.update(result_chord_retry_interval=0.2, task_protocol=int(os.environ.get("PROTOCOL", "2")))


@app.task(shared=False, name="one")
def one(*args: Any) -> int:
    """Return a number, whatever is given."""
    del args
    return 1


@app.task(shared=False, name="two")
def two(*args: Any) -> int:
    """Return another number."""
    del args
    return 2


@app.task(shared=False, name="three")
def three(*args: Any) -> int:
    """Return another number."""
    del args
    return 3


@app.task(shared=False, name="held")
def held(*args: Any) -> int:
    """Return a number, when it is let go on."""
    del args
    return 1


@app.task(shared=False, name="quiet", ignore_result=True)
def quiet(*args: Any) -> None:
    """Leave no row."""
    del args


@app.task(shared=False, name="fail")
def fail(*args: Any) -> None:
    """End in FAILURE."""
    raise ValueError(f"on purpose, given {len(args)}")


@app.task(shared=False, bind=True, name="swap")
def swap(self: Task, *args: Any) -> Any:
    """Be replaced by another task, or by a canvas: the last argument says which."""
    by = {
        "task": two.si,
        "chain": lambda: chain(two.si(), three.s()),
        "group": lambda: group(two.si(), three.si()),
        "chord": lambda: chord([two.si(), two.si()], three.s()),
        "swap": lambda: swap.si("task"),
        "swap group": lambda: swap.si("group"),
        "fail": fail.si,
        "broken chain": lambda: chain(two.si(), fail.s(), three.s()),
    }
    raise self.replace(by[args[-1]]())


@app.task(shared=False, bind=True, name="again", max_retries=3)
def again(self: Task, *args: Any) -> int:
    """Succeed at the second try."""
    del args
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return 1


@app.task(shared=False, bind=True, name="give_up", max_retries=1)
def give_up(self: Task, *args: Any) -> None:
    """Fail at the second try."""
    del args
    raise self.retry(countdown=0.1, exc=ValueError("given up"))


@app.task(shared=False, name="ignore")
def ignore(*args: Any) -> None:
    """Give up without a word."""
    del args
    raise Ignore


@app.task(shared=False, bind=True, name="forget_chain")
def forget_chain(self: Task, *args: Any) -> int:
    """Succeed, and have nothing follow in the chain."""
    del args
    self.request.chain = None
    return 1


@app.task(shared=False, bind=True, name="forget_links")
def forget_links(self: Task, *args: Any) -> int:
    """Succeed, and have none of its links sent."""
    del args
    self.request.callbacks = None
    return 1


@app.task(shared=False, bind=True, name="forget_errbacks")
def forget_errbacks(self: Task, *args: Any) -> None:
    """Fail, and have none of its errbacks called."""
    del args
    self.request.errbacks = None
    raise ValueError("on purpose")


class UnsentTask(Task):
    """A task that nobody can send, as some libraries have it where another one of its kind waits."""

    def apply_async(self, *_: Any, task_id: str | None = None, **__: Any) -> AsyncResult:
        """Send nothing."""
        return self.AsyncResult(task_id or "none")


@app.task(shared=False, base=UnsentTask, name="unsent")
def unsent(*args: Any) -> None:
    """Never run."""
    del args


@app.task(shared=False, name="in_place")
def in_place(request: Any, exc: BaseException, traceback: Any) -> None:
    """Be an errback that Celery calls where the task failed."""
    del request, exc, traceback


@app.task(shared=False, name="errback")
def errback(task: str) -> str:
    """Be an errback that is sent."""
    return task


@app.task(shared=False, bind=True, name="bound_errback")
def bound_errback(self: Task, task: str) -> str:
    """Be an errback that is sent and bound."""
    del self
    return task


def stamped() -> Any:
    canvas = chain(one.si(), group(two.s(), three.s()))
    canvas.stamp(mark="here")
    return canvas


WHOLE: dict[str, Callable[[], Any]] = {
    "chain": lambda: chain(one.si(), two.s(), three.s()),
    "chain of one": lambda: chain(one.si()),
    "long chain": lambda: chain(*[one.si()] * 12),
    "chain in a chain": lambda: chain(one.si(), chain(two.s(), three.s()), one.s()),
    "group": lambda: group(one.si(), two.si()),
    "group of one": lambda: group(one.si()),
    "empty group": group,
    "group in a group": lambda: group(one.si(), group(two.si(), group(three.si()))),
    "chain with a group at its end": lambda: chain(one.si(), group(two.s(), three.s())),
    "chain with a group in its middle": lambda: chain(one.si(), group(two.s(), three.s()), one.s()),
    "chain of groups": lambda: chain(group(one.si(), one.si()), group(two.s(), two.s())),
    "chain of three groups": lambda: chain(
        group(one.si(), one.si()), group(two.s(), two.s()), group(three.s(), one.s())
    ),
    "chain of groups and a task": lambda: chain(group(one.si(), one.si()), group(two.s(), two.s()), three.s()),
    "chain with an empty group": lambda: chain(one.si(), group(), two.si()),
    "group of chains": lambda: group(chain(one.si(), two.s()), chain(two.si(), three.s())),
    "chain with a group of chains": lambda: chain(
        one.si(), group(chain(two.s(), three.s()), chain(two.s(), one.s())), three.s()
    ),
    "chord": lambda: chord([one.si(), two.si()], three.s()),
    "chord of one": lambda: chord([one.si()], three.s()),
    "chord without members": lambda: chord([], three.s()),
    "chord with a body of a chain": lambda: chord([one.si(), two.si()], chain(two.s(), three.s())),
    "chord with a body of a group": lambda: chord([one.si(), two.si()], group(two.s(), three.s())),
    "chord with a body of a chord": lambda: chord([one.si(), two.si()], chord([two.s(), three.s()], one.s())),
    "chord with members of chains": lambda: chord([chain(one.si(), two.s()), chain(two.si(), three.s())], one.s()),
    "chord with members of groups": lambda: chord([group(one.si(), two.si()), three.si()], one.s()),
    "chord with members of chords": lambda: chord([chord([one.si(), two.si()], three.s()), one.si()], two.s()),
    "chord with members of chains that end in groups": lambda: chord(
        [chain(one.si(), group(two.s(), three.s())), one.si()], two.s()
    ),
    "chord with members of chains with a chord": lambda: chord(
        [chain(one.si(), group(two.s(), three.s()), one.s()), one.si()], two.s()
    ),
    "chord in a chain": lambda: chain(one.si(), chord([two.s(), three.s()], one.s()), two.s()),
    "two chords in a chain": lambda: chain(
        chord([two.si(), three.si()], one.s()), chord([two.s(), three.s()], one.s())
    ),
    "chain in a group in a chain in a group": lambda: group(
        chain(one.si(), group(chain(two.s(), three.s()), one.s())), two.si()
    ),
    "chord whose body retries": lambda: chord([one.si(), two.si()], again.s()),
    "chord whose member retries": lambda: chord([again.si(), two.si()], one.s()),
    "chain whose step retries": lambda: chain(one.si(), again.s(), two.s()),
    "link": lambda: linked(one.si(), two.s()),
    "two links": lambda: linked(one.si(), two.s(), three.s()),
    "the same link twice": lambda: linked(one.si(), two.s(), two.si(5)),
    "link that is a chain": lambda: linked(one.si(), chain(two.s(), three.s())),
    "link that is a group": lambda: linked(one.si(), group(two.s(), three.s())),
    "links that are groups": lambda: linked(one.si(), group(two.s()), group(three.s(), two.s())),
    "link that is a chord": lambda: linked(one.si(), chord([two.s(), three.s()], one.s())),
    "link that is a chain that begins with a group": lambda: linked(
        one.si(), chain(group(two.s(), three.s()), one.s())
    ),
    "link of a link": lambda: linked(one.si(), linked(two.s(), three.s())),
    "link of a chain": lambda: linked(chain(one.si(), two.s()), three.s()),
    "link of a group": lambda: linked(group(one.si(), two.si()), three.s()),
    "link of a chord": lambda: linked(chord([one.si(), two.si()], three.s()), one.s()),
    "link and chain": lambda: chain(linked(one.si(), two.s()), three.s()),
    "link of a task that retries": lambda: linked(again.si(), two.s()),
    "link that is immutable": lambda: linked(one.si(), two.si()),
    "link that counts down": lambda: linked(one.si(), two.s().set(countdown=0.3)),
    "link to another queue": lambda: linked(one.si(), two.s().set(queue="other")),
    "link that is a map": lambda: linked(one.si(), xmap(two.s(), [1, 2])),
    "link that is chunks": lambda: linked(one.si(), chunks(two.s(), [(1,), (2,)], 1)),
    "link that swaps": lambda: linked(one.si(), swap.s("task")),
    "errback of a task that succeeds": lambda: one.si().on_error(errback.s()),
    "map": lambda: one.map([1, 2]),
    "starmap": lambda: one.starmap([(1,), (2,)]),
    "chunks": lambda: one.chunks([(1,), (2,), (3,)], 2),
    "chunks as a group": lambda: one.chunks([(1,), (2,), (3,)], 2).group(),
    "chain with chunks": lambda: chain(one.si(), one.chunks([(1,), (2,), (3,)], 2).group(), two.s()),
    "chain with a map": lambda: chain(one.si(), two.map([1, 2]), three.si()),
    "stamped": stamped,
    "ignored result in a chain": lambda: chain(one.si(), quiet.s(), two.s()),
    "ignored result at the end": lambda: chain(one.si(), quiet.s()),
    "chord with a body without a result": lambda: chord([one.si(), two.si()], quiet.s()),
    "swap for a task": lambda: swap.si("task"),
    "swap for a chain": lambda: swap.si("chain"),
    "swap for a group": lambda: swap.si("group"),
    "swap for a chord": lambda: swap.si("chord"),
    "swap for a swap": lambda: swap.si("swap"),
    "swap for a task in a chain": lambda: chain(one.si(), swap.si("task"), two.s()),
    "swap for a chain in a chain": lambda: chain(one.si(), swap.si("chain"), two.s()),
    "swap for a group in a chain": lambda: chain(one.si(), swap.si("group"), two.s()),
    "swap for a chord in a chain": lambda: chain(one.si(), swap.si("chord"), two.s()),
    "swap for a swap in a chain": lambda: chain(one.si(), swap.si("swap"), two.s(), three.s()),
    "swap for a swap for a group in a chain": lambda: chain(one.si(), swap.si("swap group"), two.s(), three.s()),
    "swap first in a chain": lambda: chain(swap.si("group"), two.s()),
    "swap last in a chain": lambda: chain(one.si(), swap.si("group")),
    "swap before a group": lambda: chain(swap.si("task"), group(two.s(), three.s())),
    "swap before a group and a task": lambda: chain(swap.si("chord"), group(two.s(), three.s()), one.s()),
    "swap in a group": lambda: group(swap.si("task"), swap.si("group")),
    "swap in a chord": lambda: chord([swap.si("task"), one.si()], two.s()),
    "swap for a group in a chord": lambda: chord([swap.si("group"), one.si()], two.s()),
    "swap for a chord in a chord": lambda: chord([swap.si("chord"), one.si()], two.s()),
    "swap for a chain in a chord": lambda: chord([swap.si("chain"), one.si()], two.s()),
    "swap as a body": lambda: chord([one.si(), two.si()], swap.s("group")),
    "swap with a link": lambda: linked(swap.si("task"), two.s()),
    "swap for a group with a link": lambda: linked(swap.si("group"), two.s()),
    "swap for a chain with a link": lambda: linked(swap.si("chain"), two.s()),
    "swap with an errback": lambda: swap.si("chord").on_error(errback.s()),
    "expires later": lambda: chain(one.si().set(expires=60), two.s().set(expires=60)),
    "chord that counts down": lambda: chord([one.si().set(countdown=0.5), two.si()], three.s()),
    "chain that ignores the parent": lambda: chain(one.si(), two.si(), three.si()),
    "nested deeply": lambda: chain(
        group(chain(one.si(), group(two.s(), chord([one.s(), two.s()], three.s()))), two.si()),
        three.s(),
        group(one.s(), two.s()),
    ),
    "or": lambda: one.si() | two.s() | group(three.s(), one.s()) | two.s() | three.s(),
    "chord in a chord in a chord": lambda: chord(
        [chord([chord([one.si()], two.s()), one.si()], two.s()), one.si()], three.s()
    ),
    "group with a chord and a chain with a chord": lambda: group(
        chord([one.si()], two.s()), chain(one.si(), chord([two.s()], three.s()))
    ),
}
"""All of it comes to be."""


def linked(signature: Any, *links: Any) -> Any:
    """Add links to the signature, and return it."""
    for link in links:
        signature.link(link)
    return signature


FAILS: dict[str, Callable[[], Any]] = {
    "errback that is sent": lambda: fail.si().on_error(errback.s()),
    "bound errback": lambda: fail.si().on_error(bound_errback.s()),
    "errback in place": lambda: fail.si().on_error(in_place.s()),
    "both errbacks": lambda: fail.si().on_error(in_place.s()).on_error(errback.s()),
    "errback that is a group": lambda: fail.si().on_error(group(errback.s(), bound_errback.s())),
    "errback that is a chain": lambda: fail.si().on_error(chain(errback.s(), one.s())),
    "errback of a chain": lambda: errored(chain(one.si(), fail.s(), two.s()), errback.s()),
    "errback of a chain whose last fails": lambda: errored(chain(one.si(), two.s(), fail.s()), errback.s()),
    "errback of a group": lambda: errored(group(one.si(), fail.si()), errback.s()),
    "errback of a chord": lambda: errored(chord([one.si(), fail.si()], two.s()), errback.s()),
    "errback of a body": lambda: chord([one.si(), fail.si()], errored(two.s(), errback.s())),
    "body that fails with an errback": lambda: chord([one.si(), two.si()], errored(fail.s(), errback.s())),
    "errback of a task that gives up": lambda: give_up.si().on_error(errback.s()),
    "link of a task that fails": lambda: linked(fail.si(), two.s()),
    "chain that fails first": lambda: chain(fail.si(), two.s(), three.s()),
    "chain that fails before a group": lambda: chain(one.si(), fail.s(), group(two.s(), three.s())),
    "chain that fails before a group and a task": lambda: chain(fail.si(), group(two.s(), three.s()), one.s()),
    "chain that fails before a chord": lambda: chain(fail.si(), chord([two.s(), three.s()], one.s()), two.s()),
    "chord with a member that fails": lambda: chord([one.si(), fail.si()], two.s()),
    "chord with a chain that fails": lambda: chord([chain(fail.si(), two.s()), one.si()], two.s()),
    "chord with a chain that fails in its middle": lambda: chord(
        [chain(one.si(), fail.s(), two.s()), one.si()], two.s()
    ),
    "chord with a chord that fails": lambda: chord([chord([fail.si(), one.si()], two.s()), one.si()], three.s()),
    "chord with a group with a failure": lambda: chord([group(fail.si(), one.si()), one.si()], three.s()),
    "chord that fails with a body of a chain": lambda: chord([one.si(), fail.si()], chain(two.s(), three.s())),
    "chord that fails with a body of a group": lambda: chord([one.si(), fail.si()], group(two.s(), three.s())),
    "chord that fails with a body of a chord": lambda: chord(
        [one.si(), fail.si()], chord([two.s(), three.s()], one.s())
    ),
    "chord that fails in a chain": lambda: chain(one.si(), chord([fail.s(), two.s()], three.s()), one.s(), two.s()),
    "body that fails in a chain": lambda: chain(chord([one.si(), two.si()], fail.s()), one.s()),
    "group whose member fails": lambda: group(one.si(), fail.si()),
    "swap for a failure in a chain": lambda: chain(swap.si("fail"), two.s()),
    "swap for a chain that breaks in a chain": lambda: chain(swap.si("broken chain"), two.s()),
    "swap for a chain that breaks in a chord": lambda: chord([swap.si("broken chain"), one.si()], two.s()),
    "swap for a failure with an errback": lambda: swap.si("fail").on_error(errback.s()),
    "link that fails": lambda: linked(one.si(), fail.s()),
}
"""Something in it fails, and what depends on that never comes."""


BROKEN_CHAINS: dict[str, Callable[[], Any]] = {
    "forgotten step": lambda: chain(named(forget_chain, "p-step"), two.s()),
    "forgotten steps": lambda: chain(one.si(), named(forget_chain, "p-steps"), two.s(), three.s()),
    "forgotten group": lambda: chain(named(forget_chain, "p-group"), group(two.s(), three.s())),
    "forgotten chord": lambda: chain(named(forget_chain, "p-chord"), group(two.s(), three.s()), one.s()),
    "forgotten link": lambda: linked(named(forget_links, "p-link"), two.s()),
    "forgotten links": lambda: linked(named(forget_links, "p-links"), group(two.s(), three.s())),
    "forgotten errback": lambda: named(forget_errbacks, "p-errback").on_error(errback.s()),
    "unsent step": lambda: chain(named(one, "p-unsent"), unsent.s(), two.s()),
    "unsent link": lambda: linked(named(one, "p-unsent-link"), unsent.s(), two.s()),
}
"""In each a task, whose id begins with `p-`, promised something that never comes."""

BROKEN_CHORDS: dict[str, Callable[[], Any]] = {
    "member without a result": lambda: chord([one.si(), quiet.si()], named(two, "b-quiet")),
    "member that gives up": lambda: chord([one.si(), ignore.si()], named(two, "b-ignore")),
    "member that nobody sent": lambda: chord([one.si(), unsent.si()], named(two, "b-half")),
    "body that nobody sent": lambda: chord([one.si(), two.si()], named(unsent, "b-unsent")),
    # Celery records a failure for the group and none for its members, which its unlock waits for.
    "member that is a group and fails": lambda: chord(
        [chain(fail.si(), group(two.s(), three.s())), one.si()], named(two, "b-group")
    ),
    "chain that breaks off": lambda: chord([chain(forget_chain.si(), two.s()), one.si()], named(two, "b-chain")),
}
"""The body of each, whose id begins with `b-`, never comes."""

WAITING = {"waiting": lambda: chord([one.si(), two.si().set(queue="nobody")], named(three, "b-waiting"))}
"""A member waits where nobody consumes."""


class Hasty:
    """A canvas of which one task is sent at once as well, before its turn."""

    def __init__(self, canvas: Any, early: Any) -> None:
        """Keep the canvas and the task of it that is sent early."""
        self._canvas, self._early = canvas, early

    def apply_async(self) -> None:
        """Send both."""
        self._canvas.apply_async()
        self._early.apply_async()


EARLY: dict[str, Callable[[], Any]] = {
    "early step": lambda: Hasty(chain(held.si(), named(two, "e-step")), named(two, "e-step")),
    "early body": lambda: Hasty(chord([held.si(), one.si()], named(three, "e-body")), named(three, "e-body")),
}
"""In each a task, whose id begins with `e-`, begins while the task before it, `held`, has not ended."""


def named(task: Task, task_id: str) -> Any:
    """Return a signature with this id, which takes the arguments that it is given."""
    return task.s().set(task_id=task_id)


def errored(signature: Any, *errbacks: Any) -> Any:
    """Add errbacks to the signature, and return it."""
    for callback in errbacks:
        signature.link_error(callback)
    return signature


SHAPES = WHOLE | EARLY | FAILS | BROKEN_CHAINS | BROKEN_CHORDS | WAITING


@app.task(shared=False, name="start", ignore_result=True)
def start(shape: str) -> None:
    """Send a canvas."""
    SHAPES[shape]().apply_async()
