"""The errors that the harness raises on purpose.

Each message says what was seen and what to do about it, so that the shell and pytest can print it as it is, without a
traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class HarnessError(Exception):
    """The base of every error of the harness."""


class UsageError(HarnessError):
    """The caller asked for something that cannot be done: a bad option, an unknown scenario, an absent app."""


class ProjectError(HarnessError):
    """A file of the app's project cannot be read, or asks for something that cannot be had."""


class EngineError(HarnessError):
    """No container engine answers, or it answered a request of the harness with an error."""


class ImageError(HarnessError):
    """An image could not be found, pulled, bootstrapped or built."""


class StartError(HarnessError):
    """A node died or did not become ready; the message ends with its last log lines."""


class WaitTimeout(HarnessError):  # noqa: N818 - "timeout" as in TimeoutError.
    """A bounded wait ran out; the message ends with what was last seen."""


class JournalError(HarnessError):
    """A journal line could not be written, so later events would not be recorded."""


class ResultsError(HarnessError):
    """The result tables could not be opened or read."""


class RunFolderError(HarnessError):
    """A run folder is missing, unreadable, or not a run folder."""


class RecordError(HarnessError):
    """A message of another process, or a JSON file, does not hold what it has to; the message shows what was seen."""


class BrokerError(HarnessError):
    """The broker refused or failed a request of the harness itself (a vhost, a user, a count of messages)."""


class ServiceError(HarnessError):
    """A service beside the broker, such as a database server, refused or failed a request of the harness itself."""


@contextmanager
def noted_on(first: BaseException | None) -> Iterator[None]:
    """Add a HarnessError raised in here as a note to `first`; if `first` is None, raise it."""
    try:
        yield
    except HarnessError as also:
        if first is None:
            raise
        first.add_note(told(also, after=first))


def told(error: BaseException, *, after: BaseException | None = None) -> str:
    """Return the texts of an error and of those before it, such as one during cleanup; the first comes first.

    Args:
        error: the last of them.
        after: the error up to which all were reported already; None reports all.
    """
    errors: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current is not after:
        errors.append(current)
        # The message of an error raised `from` another one covers that one.
        current = None if current.__suppress_context__ else current.__context__
    return "\n".join(line for one in reversed(errors) for line in _told(one))


def _told(error: BaseException) -> Iterator[str]:
    if isinstance(error, HarnessError):
        yield str(error)
    elif isinstance(error, Exception):
        yield f"{type(error).__name__}: {error}"
    yield from getattr(error, "__notes__", ())
