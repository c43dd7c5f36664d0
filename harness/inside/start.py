"""The first program in a container: it runs a module of `harness.inside`, or says in one line why it cannot.

``python start.py agent -A app worker`` runs `harness.inside.agent` with ``-A app worker``. The image may be somebody's
own, with an old Python. So this file is run by its path, is valid in every Python from 3.6, and imports nothing of the
harness before it has looked at the version: an import would end in a traceback.
"""

import contextlib
import os
import runpy
import sys

OLDEST_PYTHON = (3, 11)
MARK = "celery-harness: "
"""The beginning of a line that says why the container ends; `harness.containers.node` shows the line."""


def refuse(reason: str) -> None:
    """End the process with one line on standard error."""
    sys.stdout.flush()
    sys.exit(MARK + reason)


def patch_for_greenlets(*arguments: str) -> None:
    """Let Celery patch the standard library for a pool of greenlets before anything uses it, as its own command does.

    The agent imports much of Celery. What was imported before the patch would keep one value for all greenlets where
    it means to have one for each.
    """
    from celery import maybe_patch_concurrency  # noqa: PLC0415 - only an image that was checked has it.

    # Celery does so once more, and then it is told what the image lacks.
    with contextlib.suppress(ImportError):
        maybe_patch_concurrency(["celery", *arguments])


def main() -> None:
    """Check the image, and become the module that the first argument names."""
    own_folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - as short as `sys.path` has it.
    if sys.path and os.path.abspath(sys.path[0]) == own_folder:  # noqa: PTH100 - the same.
        # Python looks for modules beside the program first, where a file could have the name of another module.
        del sys.path[0]
    if sys.version_info < OLDEST_PYTHON:
        found, oldest = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST_PYTHON))
        refuse(
            f"Python {found} is too old: `python` of the image ({sys.executable}) has to be {oldest} or newer. "
            f"Build the image on Python {oldest}."
        )
    module, arguments = sys.argv[1], sys.argv[2:]
    if module == "agent":
        # It needs the harness, and so the Python that was just checked.
        from harness.inside.image_check import missing  # noqa: PLC0415

        reason = missing(os.environ.get("CELERY_RESULT_BACKEND", ""))
        if reason:
            refuse(reason)
        patch_for_greenlets(*arguments)
    sys.argv = [module, *arguments]
    runpy.run_module(f"harness.inside.{module}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
