"""The commands that prepare what an app needs, such as its migrations, before the first worker starts."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.containers.app_node import AppNode, with_advice
from harness.containers.engine import Engine, Status
from harness.containers.node import Node
from harness.errors import StartError, UsageError, WaitTimeout
from harness.wait import REAL, Clock, Reports, wait_until

TIMEOUT_S = 300.0
"""The longest time of one command."""
_LAST_LINES = 20
_SHELLS_OWN = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1"})


def words_of(command: str) -> list[str]:
    """Return a command's program and arguments, split as a shell does. Raises UsageError if only a shell can run it."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command {command!r} cannot be split into words: {error}.") from None
    if not words:
        raise UsageError("an empty command cannot be run; leave it out.")
    if not _SHELLS_OWN.isdisjoint(words):
        raise UsageError(
            f"the command {command!r} needs a shell, and none runs it: make several commands of it, or ask for a "
            f"shell, as in {shlex.join(['sh', '-c', command])}."
        )
    return words


def prepare(
    engine: Engine,
    app: AppNode,
    commands: Sequence[str],
    *,
    logs: Path,
    say: Callable[[str], None],
    timeout_s: float = TIMEOUT_S,
    clock: Clock = REAL,
) -> None:
    """Run the commands one after another, each in a container that sees what the app's nodes see.

    Args:
        engine: runs them.
        app: the app's settings.
        commands: each is split into words as a shell does, and run without a shell.
        logs: gets the log of each, as ``prepare-<number>.log``.
        say: gets the progress, if one takes more than a second.
        timeout_s: how long each may take.
        clock: of the time-out and the progress.

    Raises:
        StartError: a command ended with another exit code than 0, or did not end in time.
        EngineError: the engine cannot run a command, for instance because the image does not have the program.
    """
    for number, command in enumerate(commands, 1):
        node = Node(engine, app.spec(f"prepare-{number}", words_of(command), module=None), network=app.network)
        try:
            node.start()
            _wait(node, command, say, timeout_s, clock)
        finally:
            try:
                node.save_logs(logs)
            finally:
                node.remove()


def _wait(node: Node, command: str, say: Callable[[str], None], timeout_s: float, clock: Clock) -> None:
    """Wait until the command has ended well. Raises StartError."""
    begin_s, reports = clock.now(), Reports(clock)

    def has_ended() -> bool:
        if reports.is_due():
            say(f"preparing with `{command}`: {clock.now() - begin_s:.0f} s so far")
        return node.container.state().status in {Status.EXITED, Status.GONE}

    try:
        wait_until(has_ended, what=command, timeout_s=timeout_s, clock=clock)
    except WaitTimeout:
        raise StartError(
            f"the command `{command}`, which prepares the app, did not end within {timeout_s:g} s, and was ended. "
            f"{_last_words(node)}"
        ) from None
    state = node.container.state()
    if state.exit_code != 0:
        ended = "was removed" if state.status is Status.GONE else state
        said = f"the command `{command}`, which prepares the app, {ended} ({node.name}.log)."
        raise with_advice(StartError(f"{said} {_last_words(node)}"))


def _last_words(node: Node) -> str:
    said = node.last_lines(_LAST_LINES)
    return f"Its last log lines:\n{said}" if said else "It said nothing."
