"""A worker: the real `celery worker` of a user's app, under the agent, on one network with the broker."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.containers.app_node import RUN_INSIDE, AppNode, JournalingNode, inside_command
from harness.containers.engine import Engine
from harness.records.event import Kind, Settings

DEFAULT_OPTIONS = ("--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=info")
"""Mingling alone costs a second at the start; and a single worker has no other to gossip with."""
_BEHIND = 'PATH="$1:$PATH"; export PATH; shift; exec "$@"'
"""The shell becomes the command of the project, which is then process 1, and finds the agent as `celery`."""
_AGENT_AS_CELERY = """#!/bin/sh
case " $* " in *" worker "*) set -- "$@" "--hostname=$HARNESS_NODE@%h" ;; esac
exec {command} "$@"
"""


def _shim(run_folder: Path) -> str:
    """Write the program that stands for `celery`, and return its folder inside the container."""
    folder = run_folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "celery"
    program.write_text(_AGENT_AS_CELERY.format(command=shlex.join(inside_command("agent"))), encoding="utf-8")
    program.chmod(0o755)
    return f"{RUN_INSIDE}/{folder.name}"


class Worker(JournalingNode):
    """`celery worker`, ready when it consumes."""

    def __init__(
        self,
        engine: Engine,
        app: AppNode,
        *,
        name: str,
        options: Sequence[str] | None = None,
        queues: Sequence[str] = (),
        entrypoint: Sequence[str] = (),
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            app: the app's settings.
            name: the node's name, unique within its stack; Celery sees ``<name>@<name>``.
            options: any options of `celery worker`, instead of DEFAULT_OPTIONS.
            queues: what it consumes, unless the options say it; empty for the app's own queues.
            entrypoint: the command that starts it, instead of the harness's own with `options` and `queues`.
        """
        # The agent writes this line as soon as the worker consumes.
        ready = Kind.READY
        if entrypoint:
            command = ("sh", "-c", _BEHIND, "sh", _shim(app.run_folder), *entrypoint)
            super().__init__(engine, app.spec(name, command, module=None), app, ready=ready)
            return
        chosen = list(DEFAULT_OPTIONS if options is None else options)
        if queues and not any(re.match(r"-Q|--queues(=|$)", option) for option in chosen):
            chosen.append(f"--queues={','.join(queues)}")
        command = ("-A", app.app, "worker", f"--hostname={name}@%h", *chosen)
        super().__init__(engine, app.spec(name, command), app, ready=ready)

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the tasks that it has registered, without Celery's own; empty before it is ready."""
        return frozenset(task for event in self.said(Kind.SETTINGS) for task in event.of(Settings).get("tasks", ()))
