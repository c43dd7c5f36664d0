"""A module that the app imports and the image does not have: told in one line, after Celery's own words."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.app import utils

from harness.inside.start import MARK

_OWN_FOLDER = "`-A` is imported from the app's folder, which has no such module. Is the name right, and the folder?"
_DEPENDENCY = (
    "If it is a package, the workers' image has to have it: name it in the setting `dependencies`, or name an image "
    "that has it in HARNESS_WORKER_IMAGE. If it is a module of the app, it has to be in the app's folder or on "
    "PYTHONPATH."
)
_NOT_THE_APPS = (f"{os.sep}importlib{os.sep}", f"{os.sep}celery{os.sep}", "<frozen ")
"""What the names of files contain that import a module only because somebody else has named it."""


class AppImport:
    """Watches how Celery imports the app: Celery prints such an error in its own words, with a traceback."""

    def __init__(self) -> None:
        """Create it without watching anything; see `watch`."""
        self._app = ""
        self._error: ModuleNotFoundError | None = None

    def watch(self) -> None:
        """Remember what is not found. Must be called before Celery's command line is imported."""
        find: Callable[..., Any] = utils.find_app

        def watched_find(app: Any, *args: Any, **options: Any) -> Any:
            self._app = str(app)
            try:
                found = find(app, *args, **options)
            except ModuleNotFoundError as error:
                self._error = error
                raise
            # Celery tries several names, and this was one that it has found.
            self._error = None
            return found

        utils.find_app = watched_find

    @contextmanager
    def told(self) -> Iterator[None]:
        """Run Celery in here. If it ends because a module is not there, the last line of the log says what to do."""
        try:
            yield
        except SystemExit:
            if self._error is not None:
                _say(self._explained(self._error))
            raise
        except ModuleNotFoundError as error:
            # What the app includes is imported later than the app itself, and nobody catches this error.
            traceback.print_exception(error)
            _say(self._explained(error))
            sys.exit(1)

    def _explained(self, error: ModuleNotFoundError) -> str:
        package = (error.name or "").partition(".")[0]
        is_of_app = bool(package) and package == self._app.partition(":")[0].partition(".")[0]
        if is_of_app:
            return f"{error}: {_OWN_FOLDER}"
        return f"{error}: {_importer(error)} needs it. {_DEPENDENCY}"


def _importer(error: ModuleNotFoundError) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    # The last frames are those of the import itself, which Python leaves out unless a function did it.
    if last and not any(part in last[0].filename for part in _NOT_THE_APPS):
        return f"{last[0].filename}, line {last[0].lineno},"
    return "the app, or an option of its command,"


def _say(sentence: str) -> None:
    # The log keeps the order of what was written, if nothing is left in a buffer.
    sys.stdout.flush()
    sys.stderr.write(f"{MARK}{sentence}\n")
    sys.stderr.flush()
