"""Everything the harness raises on purpose.

Each message says what was seen and what to do about it, so that the doors (shell and pytest) can print
it as it is, without a traceback.
"""


class HarnessError(Exception):
    """The base of every error of the harness."""


class UsageError(HarnessError):
    """The caller asked for something that cannot be done: a bad option, an unknown scenario, an absent app."""


class EngineError(HarnessError):
    """No container engine answers, or it answered a request of ours with an error."""


class ImageError(HarnessError):
    """An image could not be found, pulled, bootstrapped or built."""


class StartError(HarnessError):
    """A node died or did not become ready; the message ends with its last log lines."""


class WaitTimeout(HarnessError):  # noqa: N818 - "timeout" is the field's word, as in TimeoutError.
    """A bounded wait ran out; the message ends with what was last seen."""


class JournalError(HarnessError):
    """A journal line could not be written, so what happens next would go unwitnessed."""


class ResultsError(HarnessError):
    """The result tables could not be opened or read."""


class RunFolderError(HarnessError):
    """A run folder is missing, unreadable, or is no run folder."""


class BrokerError(HarnessError):
    """The broker refused or failed a request of the harness itself (a vhost, a user, a count of messages)."""
