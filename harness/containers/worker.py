"""A worker: the real `celery worker` of a user's app, under the agent, on one network with the broker."""

import re
from collections.abc import Sequence

from harness.containers.app_node import AppNode, JournalingNode
from harness.containers.engine import Engine
from harness.records.event import Kind, Settings

DEFAULT_OPTIONS = ("--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=info")
"""Mingling alone costs a second at the start; and a single worker has no other to gossip with."""


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
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            app: the app's settings.
            name: the node's name, unique within its stack; Celery sees ``<name>@<name>``.
            options: any options of `celery worker`, instead of DEFAULT_OPTIONS.
            queues: what it consumes, unless the options say it; empty for the app's own queues.
        """
        chosen = list(DEFAULT_OPTIONS if options is None else options)
        if queues and not any(re.match(r"-Q|--queues(=|$)", option) for option in chosen):
            chosen.append(f"--queues={','.join(queues)}")
        command = ("-A", app.app, "worker", f"--hostname={name}@%h", *chosen)
        # The agent writes this line as soon as the worker consumes.
        super().__init__(engine, app.spec(name, command), app, ready=Kind.READY)

    @property
    def tasks(self) -> frozenset[str]:
        """The names of the tasks that it has registered, without Celery's own; empty before it is ready."""
        return frozenset(task for event in self.said(Kind.SETTINGS) for task in event.of(Settings).get("tasks", ()))
