"""The needs that a stack can meet, beside a broker: files of the machine, a network, services, a place for results."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import UsageError


class Network(StrEnum):
    """A kind of network, by what its nodes reach beside one another."""

    CLOSED = "closed"
    """Nothing else, but for the one address that the network itself has on its machine."""
    OPEN = "open"
    """Their machine, and whatever it reaches."""


class Service(StrEnum):
    """A server beside the broker."""

    POSTGRESQL = "postgresql"
    REDIS = "redis"


class ResultsIn(StrEnum):
    """A place for the results of a stack."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of this machine that a node sees."""

    host: Path
    inside: str
    read_only: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a name that is not UTF-8."""
        try:
            str(self.host).encode()
        except UnicodeEncodeError:
            raise UsageError(f"the name of {self.host} is no UTF-8, so no container can see it: rename it.") from None
