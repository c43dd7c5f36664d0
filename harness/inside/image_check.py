"""The check of an image: does it lack something to run Celery under the agent? It imports no package.

An old Celery cannot even be imported on a new Python, so its own error would not name the cause.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from importlib import metadata

_OLDEST_CELERY = (5, 2)
_OLDEST_ON_NEW_PYTHON = (5, 3)
_NEW_PYTHON = (3, 12)
"""Celery before 5.3 finds its plugins through a method that Python 3.12 no longer has."""

Version = Callable[[str], str | None]
"""Returns the version of an installed package; an empty text if it is there and does not say; None if it is absent."""


def installed(package: str) -> str | None:
    """Return the version of an installed package, as `Version` describes."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # A package that was copied into the image works without its metadata.
        return None if importlib.util.find_spec(package) is None else ""


def missing(
    results_url: str, *, version: Version = installed, python: tuple[int, int] = sys.version_info[:2]
) -> str | None:
    """Return what the image lacks, as a sentence that says what to do; None if it lacks nothing.

    Args:
        results_url: Celery's result backend, such as ``db+sqlite:////harness/run/results.sqlite3``.
        version: finds the version of a package.
        python: the version of this Python.
    """
    celery = version("celery")
    if celery is None:
        return f"the image's Python {_dotted(python)} has no Celery: install Celery {_dotted(_OLDEST_CELERY)} or newer."
    found = _numbers(celery)
    if found is not None and found < _OLDEST_CELERY:
        return (
            f"Celery {celery} is too old: the harness runs Celery {_dotted(_OLDEST_CELERY)} or newer. "
            "Install a newer one in the image."
        )
    if found is not None and found < _OLDEST_ON_NEW_PYTHON and python >= _NEW_PYTHON:
        return (
            f"Celery {celery} cannot run on Python {_dotted(python)}: build the image on Python 3.11, or install "
            f"Celery {_dotted(_OLDEST_ON_NEW_PYTHON)} or newer in it."
        )
    if results_url.startswith("db+") and version("sqlalchemy") is None:
        return (
            f"the image's Python {_dotted(python)} has no SQLAlchemy, and Celery cannot store results in a database "
            "without it: install SQLAlchemy 1.4 or newer."
        )
    return None


def _numbers(version: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version; None if it has no such beginning."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
