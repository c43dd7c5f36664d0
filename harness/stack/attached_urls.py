"""The URLs of a broker and of results that run elsewhere: are they valid, and does somebody answer there?"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from harness import printable
from harness.audit.results import Results
from harness.broker_connection import connect, shown
from harness.errors import BrokerError, UsageError
from harness.records.values import Json

_CONNECT_TIMEOUT_S = 10.0
_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})


def check_broker_url(url: str) -> None:
    """Refuse what is no URL of an AMQP broker. Raises UsageError."""
    for part in url.split(";"):
        try:
            parsed = urlsplit(part)
            # A part that looks like a port and is none may be a piece of a password, so the error is not shown.
            is_fine = parsed.scheme in _SCHEMES and bool(parsed.hostname) and parsed.port != 0
        except ValueError:
            is_fine = False
        if not is_fine:
            raise UsageError(
                f"{shown(part)!r} is no URL of an AMQP broker: give one such as amqp://user:password@host:5672/vhost, "
                "and write special characters in user and password as %40 and the like."
            )


def reach(broker_url: str, results_url: str) -> None:
    """Check that `Attached` could connect, and leave nothing behind.

    Raises:
        UsageError: `broker_url` is no AMQP URL.
        BrokerError: the broker does not answer, or refuses the login of this URL.
        ResultsError: the results cannot be read.
    """
    check_broker_url(broker_url)
    reach_both(broker_url, Results(results_url))


def reach_both(broker_url: str, results: Results) -> None:
    """Connect to the broker once, and read the results once. Raises BrokerError or ResultsError."""
    check_broker(broker_url)
    for _ in results.endings(["harness"]):
        pass


def check_broker(url: str) -> None:
    """Connect once, as the producer will. Raises BrokerError."""
    try:
        connect(url, _CONNECT_TIMEOUT_S).release()
    except BrokerError as error:
        seen = str(error).rstrip(".")
        raise BrokerError(
            f"the broker at {shown(url)} cannot be used: {seen}. Is it running, and are user, password and vhost right?"
        ) from error


def without_passwords(value: Json) -> Json:
    """Return the value with the password hidden in every URL within it."""
    if isinstance(value, str):
        return printable.without_passwords(value)
    if isinstance(value, Mapping):
        return {key: without_passwords(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(one) for one in value]
    return value
