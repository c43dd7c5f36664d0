"""The import of orders, misbehaving on purpose: FAULT names the one thing that it does wrong."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Engine, text

from scenarios.app import app
from scenarios.bulk_data import tasks
from scenarios.bulk_data.order_row import Row
from scenarios.bulk_data.tables import close, store
from scenarios.bulk_data.tasks import save_group

__all__ = ["app"]


def store_without_one(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Lose the order that ROW names."""
    store(engine, [row for row in orders if row["order_id"] != os.environ["ROW"]], rejects)


def store_one_more(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Invent an order."""
    store(engine, [*orders, {**next(iter(orders)), "order_id": "nobody-ordered"}], rejects)


def store_backwards(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Let the earlier row of the file win."""
    store(engine, [{**row, "version": row["version"] ^ ((1 << 40) - 1)} for row in orders], rejects)


def store_no_rejects(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Forget what was rejected."""
    del rejects
    store(engine, orders, [])


def close_with_one_more(engine: Engine, import_id: str, counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Count a row that was never read."""
    return close(engine, import_id, [*counts, {"read": 1, "good": 1, "rejected": 0}])


def close_twice(engine: Engine, import_id: str, counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Close once, forget it, and close again."""
    close(engine, import_id, counts)
    with engine.begin() as connection:
        connection.execute(text("UPDATE imports SET state = 'open' WHERE closings = 1"))
    return close(engine, import_id, counts)


def save_no_group(group: str, members: Sequence[str]) -> None:
    """Leave no trace of a group."""
    del group, members


def save_without_one(group: str, members: Sequence[str]) -> None:
    """Leave out the last member of a group."""
    save_group(group, members[:-1])


_FAULTS: Mapping[str, Mapping[str, object]] = {
    "none": {},
    "row lost": {"store": store_without_one},
    "row invented": {"store": store_one_more},
    "earlier row wins": {"store": store_backwards},
    "rejects forgotten": {"store": store_no_rejects},
    "counted once more": {"close": close_with_one_more},
    "closed twice": {"close": close_twice},
    "group not saved": {"save_group": save_no_group},
    "member not saved": {"save_group": save_without_one},
}
for _name, _wrong in _FAULTS[os.environ["FAULT"]].items():
    setattr(tasks, _name, _wrong)
