"""The image of a worker of tests that are written for pytest-celery, and the packages that it lacks."""

from collections.abc import Callable
from pathlib import Path

from harness.containers import app_image
from harness.containers.image_recipes import Image, is_ours, is_replaced, own_context, pins_of
from harness.containers.packages import unpacked_wheels
from harness.errors import ImageError
from harness.project.dependencies import plan_with_celery
from harness.stack.shared_parts import SharedParts

_NODE = "node-requirements.txt"
_PACKAGES = "pytest-celery-requirements.txt"
_ALSO = ("celery[redis]", "gevent", "psutil", "pytest-celery")
"""What an image with another Celery has beside it: the same as pytest-celery's own image, as far as it is served."""


def image_for(
    session: SharedParts, named: str | None, version: str, *, source: str, folder: Path, say_once: Callable[[str], None]
) -> tuple[str, Path | None]:
    """Return the image of a worker, and a folder of packages for it, which is None if it needs none.

    Args:
        session: has the image of workers, and the engine that gets another one.
        named: an image that the settings name.
        version: the version of Celery that it has to have; empty for any.
        source: who asks for this version, for a person.
        folder: the app's.
        say_once: gets a line that is said once.

    Raises:
        ProjectError: the harness does not work with this version.
        ImageError: an image with this version cannot be built.
    """
    # An image that somebody has chosen has the Celery that it has.
    if version and not named and not is_replaced(Image.NODE) and f"celery=={version}" not in _pins(_NODE):
        plan = plan_with_celery(version, folder=folder, source=source, also=_ALSO)
        return app_image.ensure(session.engine, plan, say=session.say), None
    image = named or session.worker_image
    return image, _packages(session, say_once) if is_ours(image) else None


def _pins(requirements: str) -> tuple[str, ...]:
    return pins_of(own_context(), requirements)


def _packages(session: SharedParts, say_once: Callable[[str], None]) -> Path | None:
    """Return the folder of the packages that pytest-celery's own image has and the node image lacks."""
    try:
        return unpacked_wheels(
            _pins(_PACKAGES),
            architecture=session.engine.architecture(),
            name="pytest-celery's packages",
            say=say_once,
        )
    except ImageError as error:
        say_once(f"workers go without redis, gevent, psutil and pytest_celery: {error}")
        return None
