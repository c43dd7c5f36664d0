"""The stack that the settings of a project describe. Every door comes through here."""

import os
from functools import lru_cache
from pathlib import Path

from harness.errors import UsageError
from harness.project.dependencies import Means, Plan, Wanted, plan_of
from harness.project.settings import Settings
from harness.stack.stack_spec import StackSpec

_OF_THE_IMAGE = ("dependencies", "dockerfile", "apt", "python")
"""The settings that say what the app's own image is made of."""


def spec_of(settings: Settings, *, workers: int, mailbox: bool = False, own_image: bool = True) -> StackSpec:
    """Return the description of the stack that the settings ask for.

    Args:
        settings: what was said, by everybody.
        workers: how many workers it has if the settings do not say.
        mailbox: whether it has a mailbox.
        own_image: False if the app needs nothing of the project's dependencies.

    Raises:
        UsageError: no app is named, or the app's folder is missing.
        ProjectError: a file of the project's dependencies is damaged, or asks for what cannot be had.
    """
    if settings.app is None:
        raise UsageError(
            "no app is named: say what `celery -A` takes, with the setting `app` in [tool.harness] of pyproject.toml "
            "or in harness.toml."
        )
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
        build=_built(settings) if own_image and settings.image is None else None,
        prepare=settings.prepare,
        writable=settings.writable,
        mounts=settings.mounts,
        services=settings.services,
        results=settings.results,
        effects=settings.effects,
        network=settings.network,
    )


def image_plan(settings: Settings) -> Plan:
    """Return what the app's own image is made of. Raises ProjectError."""
    folder = settings.folder if settings.project is None else settings.project
    return _planned(
        folder,
        Wanted(
            dependencies=tuple(_below(one, folder) for one in settings.dependencies),
            apt=settings.apt,
            python=settings.python,
            dockerfile=None if settings.dockerfile is None else _below(settings.dockerfile, folder),
            image=settings.image,
        ),
    )


def _built(settings: Settings) -> Plan | None:
    """Return what the app's own image is made of; None if the harness's own image has all that is needed.

    A project without settings has not asked for an image of its own. One with settings gets it as soon as a file says
    what to install.
    """
    said = [key for key in _OF_THE_IMAGE if key in settings.sources]
    if settings.project is None and not said:
        return None
    plan = image_plan(settings)
    if plan.means is not Means.NOTHING:
        return plan
    if said:
        raise UsageError(
            f"{settings.source(said[0])}: the setting {said[0]} is for the app's own image, and nothing says what to "
            'install there: name it, as in dependencies = ["celery", "redis"].'
        )
    return None


@lru_cache(maxsize=16)
def _planned(folder: Path, wanted: Wanted) -> Plan:
    # Every test asks for the same plan, and a lock may be long.
    return plan_of(folder, wanted)


def _below(entry: str | Path, folder: Path) -> str:
    return os.path.relpath(entry, folder) if isinstance(entry, Path) else entry
