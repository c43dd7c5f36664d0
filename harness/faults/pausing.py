"""Freezing and unfreezing of containers, and the proof of it."""

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import SETTLED_S
from harness.wait import wait_until


def pause(node: Node) -> None:
    """Freeze a node, and return when it is seen frozen. Raises HarnessError."""
    node.pause()
    wait_until(
        lambda: node.container.state().status is Status.PAUSED, what=f"{node.name} is paused", timeout_s=SETTLED_S
    )


def unpause(node: Node) -> None:
    """Unfreeze a node if it is paused. Raises UsageError if it is down: something else stopped it."""
    state = node.container.state()
    if state.status is Status.PAUSED:
        node.unpause()
    elif state.status is not Status.RUNNING:
        raise UsageError(f"{node.name} cannot be unpaused: it is {state}.")


def not_paused(node: str | None, before: State | None) -> str | None:
    """Return why a node was not frozen until healing began; None if it was."""
    if before is None or before.status is not Status.PAUSED:
        return f"{node} was not paused any more when it was to be healed: it was seen {before}."
    return None
