"""The needs that a stack can meet, beside a broker: files of the machine, a network, services, a place for results."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from harness.errors import UsageError

APP_INSIDE = "/app"
"""The app's folder inside its nodes, and while its dependencies are installed: paths in it are then the same."""


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
class EffectQuery:
    """A query that finds effects in the app's own database, one in each row.

    The first column is the key of the effect. A column `times` says how often the effect is there, and a column `task`
    which task caused it.
    """

    query: str
    database: str | None = None
    """The path of a SQLite file as nodes see it, relative to the app's folder; None for the database that the template
    `{database.url}` stands for."""

    def inside(self, app_folder: str) -> PurePosixPath:
        """Return the absolute path of the SQLite file inside a node, whose folder of the app is `app_folder`."""
        return PurePosixPath(app_folder, self.database or "")


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
