"""The first start of somebody's app: one worker in a container, which says what tasks it knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.audit.run_folder import HOME, RunFolder
from harness.containers.mailbox import SMTP_PORT
from harness.containers.worker import DEFAULT_OPTIONS
from harness.project.setup_plan import Draft
from harness.records.event import Kind, Ready
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

_TEMPLATE = re.compile(r"\{\{|\}\}|\{([\w.]+)\}")


@dataclass(frozen=True, kw_only=True)
class FirstStart:
    """What a worker has said when it was ready."""

    tasks: tuple[str, ...]
    """The names of the app's own tasks."""
    queues: tuple[str, ...]
    """The queues that it consumes."""


def spec_for(root: Path, settings: Draft) -> StackSpec:
    """Return the stack of a project's settings; values of the environment still have templates."""
    options = settings.options or DEFAULT_OPTIONS
    return StackSpec(
        app=settings.app,
        app_folder=root / settings.import_folder,
        options=(*options, f"--queues={','.join(settings.queues)}") if settings.queues else options,
        mailbox=settings.with_mailbox,
        env={value.name: value.value for value in settings.env.values()},
    )


def start_once(session: SharedParts, spec: StackSpec, root: Path) -> FirstStart:
    """Start one worker of an app, take it down again, and return what it said.

    Args:
        session: has the broker and the image.
        spec: describes the worker.
        root: the project's folder, which gets the run folder.

    Raises:
        StartError: the worker does not become ready; the message ends with its last log lines.
        HarnessError: a part of the stack does not start.
    """
    folder = RunFolder.create(root / HOME / "runs", "init")
    with Stack(session, replace(spec, workers=0), folder) as stack:
        known = {"broker.url": stack.login.amqp_url_inside}
        if spec.mailbox:
            known |= {"mailbox.host": stack.mailbox.host, "mailbox.port": str(SMTP_PORT)}
        # Only a stack that runs knows its mailbox and its broker.
        stack.spec = replace(spec, env=_filled(spec.env, known))
        worker = stack.add_worker()
        (ready,) = worker.said(Kind.READY)
        return FirstStart(tasks=tuple(sorted(worker.tasks)), queues=tuple(sorted(ready.of(Ready)["queues"])))


def _filled(env: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the templates filled in; one that this stack does not know stays."""

    def value(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else known.get(found[1], found[0])

    return {name: _TEMPLATE.sub(value, text) for name, text in env.items()}
