"""From the settings of a project to the stack that they describe. Every door comes through here."""

import os

from harness.errors import UsageError
from harness.project.settings import Settings
from harness.stack.stack import StackSpec

UNSERVED = ("python", "dependencies", "apt", "dockerfile")
"""The settings that no stack serves yet. One that was said is refused, and never ignored."""


def spec_of(settings: Settings, *, workers: int, mailbox: bool = False) -> StackSpec:
    """Return the description of the stack that the settings ask for.

    Args:
        settings: what was said, by everybody.
        workers: how many workers it has if the settings do not say.
        mailbox: whether it has a mailbox.

    Raises:
        UsageError: no app is named, a setting is not served, or the app's folder is missing.
    """
    if settings.app is None:
        raise UsageError(
            "no app is named: say what `celery -A` takes, with the setting `app` in [tool.harness] of pyproject.toml "
            "or in harness.toml."
        )
    refuse_unserved(settings)
    return StackSpec(
        app=settings.app,
        app_folder=settings.folder,
        workers=workers if settings.workers is None else settings.workers,
        options=settings.options,
        queues=settings.queues,
        mailbox=mailbox,
        env=settings.env,
        pythonpath=[os.path.relpath(folder, settings.folder) for folder in settings.pythonpath],
        image=settings.image,
        prepare=settings.prepare,
        writable=settings.writable,
        mounts=settings.mounts,
        services=settings.services,
        results=settings.results,
        network=settings.network,
    )


def unserved(settings: Settings) -> list[str]:
    """Return the keys that were said, and that no stack serves yet."""
    return [key for key in UNSERVED if key in settings.sources]


def refuse_unserved(settings: Settings) -> None:
    """Raise UsageError if a setting was said that no stack serves yet."""
    for key in unserved(settings):
        raise UsageError(f"{settings.source(key)}: the setting {key} is not served yet; leave it out.")
