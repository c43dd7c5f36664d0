"""From the settings of a project to the stack that they describe. Every door comes through here."""

from collections.abc import Sequence

from harness.containers.worker import DEFAULT_OPTIONS
from harness.errors import UsageError
from harness.project.schema import KEYS
from harness.project.settings import Settings, rendered
from harness.project.templates import templates_in
from harness.stack.stack import StackSpec

UNSERVED = (
    "pythonpath",
    "python",
    "dependencies",
    "apt",
    "dockerfile",
    "image",
    "prepare",
    "writable",
    "mounts",
    "services",
    "network",
)
"""The settings that no stack serves yet. One that was said is refused, and never ignored."""
_SERVED_AS_VARIABLE = ("image", "network")
"""Settings whose environment variables hold for all stacks of a process, and are served."""


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
        options=_options(settings),
        mailbox=mailbox,
        # Stacks render no templates yet; this only makes single braces of doubled ones.
        env=rendered(settings.env, {}),
    )


def unserved(settings: Settings) -> list[str]:
    """Return the keys that were said, and that no stack serves yet."""
    said = [key for key in UNSERVED if key in settings.sources]
    return [key for key in said if not (key in _SERVED_AS_VARIABLE and settings.source(key) == KEYS[key].variable)]


def refuse_unserved(settings: Settings) -> None:
    """Raise UsageError if a setting was said that no stack serves yet."""
    for key in unserved(settings):
        variable = KEYS[key].variable
        instead = f", or say it with {variable}" if key in _SERVED_AS_VARIABLE else ""
        raise UsageError(f"{settings.source(key)}: the setting {key} is not served yet; leave it out{instead}.")
    for variable, text in settings.env.items():
        for name in templates_in(text, variable):
            raise UsageError(
                f"{settings.source('env')}: {variable} has the template {{{name}}}, and templates are not served yet; "
                "leave it out."
            )


def _options(settings: Settings) -> Sequence[str] | None:
    """Return the options of `celery worker`, with the queues; None for the default ones."""
    if not settings.queues:
        return settings.options
    options = DEFAULT_OPTIONS if settings.options is None else settings.options
    # If an option names queues already, it was said less near than these, and Celery takes the last.
    return (*options, f"--queues={','.join(settings.queues)}")
