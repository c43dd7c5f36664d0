"""The outbox: a table of the mails that are being sent, with the run that sends them, and of those that were sent."""

import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Column, Engine, Float, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from scenarios.emails.limits import LEASE_S


class ClaimHeld(Exception):  # noqa: N818 - it names what was found.
    """Another run that may still be alive holds the mail; the one arg is the rest of its lease in seconds."""


_metadata = MetaData()
_outbox = Table(
    "outbox",
    _metadata,
    Column("key", String(255), primary_key=True),  # the Message-ID, without angle brackets
    Column("state", String(8), nullable=False),  # "sending" or "sent"
    Column("owner", String(32), nullable=False),
    Column("claimed_at", Float, nullable=False),  # Unix time, seconds
    Column("sent_at", Float),
)


class Outbox:
    """The mails that are being sent, with the run that sends them, and those that were sent."""

    def __init__(self, engine: Engine, *, lease_s: float = LEASE_S, now: Callable[[], float] = time.time) -> None:
        """Make the table if it does not exist; several processes may do so at once.

        Args:
            engine: the app's database.
            lease_s: how long a claim holds, in seconds.
            now: returns the Unix time in seconds; the clocks of all runs must agree to within the margin of the lease.
        """
        self._engine = engine
        self._lease_s = lease_s
        self._now = now
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(CreateTable(_outbox, if_not_exists=True))

    def claim(self, key: str, owner: str) -> bool:
        """Claim a mail for one run.

        Returns:
            True if `owner` must send it now, False if it was sent already.

        Raises:
            ClaimHeld: the claim of another run has not expired yet.
        """
        now = self._now()
        mine = {"owner": owner, "claimed_at": now}
        # Every transaction starts with its write. After a read, SQLite would refuse the write at once, without the
        # busy timeout, if another process wrote in between.
        with suppress(IntegrityError), self._engine.begin() as connection:
            connection.execute(insert(_outbox).values(key=key, state="sending", **mine))
            return True
        expired = (_outbox.c.state == "sending") & (_outbox.c.claimed_at <= now - self._lease_s)
        with self._engine.begin() as connection:
            taken = connection.execute(update(_outbox).where(_outbox.c.key == key, expired).values(mine)).rowcount
            row = connection.execute(select(_outbox).where(_outbox.c.key == key)).one_or_none()
        if row is None:
            raise ClaimHeld(0.0)  # Its run has just let go of it.
        if row.state == "sending" and not taken:
            raise ClaimHeld(max(0.0, row.claimed_at + self._lease_s - now))
        return bool(taken)

    def release(self, key: str, owner: str) -> None:
        """Release the claim of `owner`, if it still holds it and nothing was sent."""
        mine = (_outbox.c.key == key) & (_outbox.c.owner == owner) & (_outbox.c.state == "sending")
        with self._engine.begin() as connection:
            connection.execute(delete(_outbox).where(mine))

    def record_sent(self, key: str, owner: str) -> None:
        """Record that the mail server has accepted the mail, regardless of who holds the claim by now."""
        now = self._now()
        sent = {"state": "sent", "owner": owner, "sent_at": now}
        with self._engine.begin() as connection:
            if connection.execute(update(_outbox).where(_outbox.c.key == key).values(sent)).rowcount:
                return
            connection.execute(insert(_outbox).values(key=key, claimed_at=now, **sent))
