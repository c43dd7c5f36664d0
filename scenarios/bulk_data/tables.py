"""The tables of the import, and every statement that changes them.

Every transaction that writes starts with its write. After a read, SQLite would refuse the write at once, without the
busy timeout, if another process wrote in between.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Date,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.order_file import PLACE_BITS, BadFile, Survey
from scenarios.bulk_data.order_row import EMAIL_CHARACTERS, ID_CHARACTERS, Row

IMPORT_ID_CHARACTERS = 100
"""The most characters that an import_id may have."""

_ATTEMPTS = 5

_metadata = MetaData()
_imports = Table(
    "imports",
    _metadata,
    Column("number", Integer, primary_key=True),  # In the order in which imports first began.
    Column("import_id", String(IMPORT_ID_CHARACTERS), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),  # Of the file, in bytes.
    Column("digest", String(64), nullable=False),  # SHA-256 of the file, in hexadecimal.
    Column("state", String(8), nullable=False),  # "open" or "closed"
    Column("closings", Integer, nullable=False),
    Column("read", BigInteger),
    Column("good", BigInteger),
    Column("rejected", BigInteger),
    Column("orders", BigInteger),  # Distinct ones: a file may name an order more than once.
    Column("total_cents", BigInteger),
    sqlite_autoincrement=True,
)
_orders = Table(
    "orders",
    _metadata,
    Column("order_id", String(ID_CHARACTERS), primary_key=True),
    Column("customer_email", String(EMAIL_CHARACTERS), nullable=False),
    Column("sku", String(ID_CHARACTERS), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price_cents", BigInteger, nullable=False),
    Column("ordered_at", Date, nullable=False),
    Column("version", BigInteger, nullable=False),
    # One tree to write instead of two.
    sqlite_with_rowid=False,
)
_rejects = Table(
    "rejects",
    _metadata,
    Column("import_id", String(IMPORT_ID_CHARACTERS), primary_key=True),
    Column("line", BigInteger, primary_key=True),  # The header is line 1.
    Column("reason", String(32), nullable=False),
    sqlite_with_rowid=False,
)
_TOTALS = ("read", "good", "rejected", "orders", "total_cents")


def create_tables(engine: Engine) -> None:
    """Make the tables that do not exist; several processes may do so at once."""
    for table in _metadata.sorted_tables:
        # If two processes make it at the same time, PostgreSQL answers the later one with an error that it exists.
        with (
            contextlib.suppress(IntegrityError),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(CreateTable(table, if_not_exists=True))


def register(engine: Engine, import_id: str, found: Survey) -> None:
    """Open an import, unless it was opened before.

    Raises:
        BadFile: it was opened before, for a file with other content.
    """
    query = select(_imports.c.size, _imports.c.digest).where(_imports.c.import_id == import_id)
    with engine.connect() as connection:
        known = connection.execute(query).one_or_none()
    if known is None:
        row = {"import_id": import_id, "size": found.size, "digest": found.digest, "state": "open", "closings": 0}
        with contextlib.suppress(IntegrityError), engine.begin() as connection:
            connection.execute(insert(_imports).values(row))
        with engine.connect() as connection:
            known = connection.execute(query).one()
    if tuple(known) != (found.size, found.digest):
        raise BadFile(
            f"the import {import_id} is of another file, with {known.size} bytes and the SHA-256 {known.digest[:12]}; "
            f"this one has {found.size} bytes and {found.digest[:12]}: give it an import_id of its own."
        )


def number_of(engine: Engine, import_id: str) -> int:
    """Return the number of a registered import."""
    with engine.connect() as connection:
        return int(connection.execute(select(_imports.c.number).where(_imports.c.import_id == import_id)).scalar_one())


def store(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Write a batch in one transaction: orders unless a newer version exists, rejects unless they exist.

    Args:
        engine: the app's database.
        orders: rows with their versions, each order_id once.
        rejects: rows.
    """
    write = _write_at_once if engine.dialect.name in {"sqlite", "postgresql"} else write_portably
    # In a database with row locks, all writers take them in the same order.
    in_order = sorted(orders, key=itemgetter("order_id"))
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                write(connection, in_order, rejects)
        except IntegrityError:
            # Another process has inserted one of the rows since the check. The next attempt will see it.
            if attempt == _ATTEMPTS:
                raise
        else:
            return


def _write_at_once(connection: Connection, orders: Collection[Row], rejects: Collection[Row]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if orders:
        new = dialect.insert(_orders)
        values: dict[str, Any] = {column: new.excluded[column] for column in (*COLUMNS[1:], "version")}
        newer = _orders.c.version < new.excluded.version
        connection.execute(new.on_conflict_do_update(index_elements=["order_id"], set_=values, where=newer), [*orders])
    if rejects:
        connection.execute(dialect.insert(_rejects).on_conflict_do_nothing(), [*rejects])


def write_portably(connection: Connection, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Write a batch in standard SQL: update older rows, look which exist, and insert the rest.

    Raises:
        IntegrityError: another process inserted one of the rows meanwhile; the transaction must be repeated.
    """
    if orders:
        is_older = (_orders.c.order_id == bindparam("key_")) & (_orders.c.version < bindparam("version_"))
        # All values of a row are set, except these two.
        named = [{**row, "key_": row["order_id"], "version_": row["version"]} for row in orders]
        connection.execute(update(_orders).where(is_older), named)
    _insert_absent(connection, _orders.c.order_id, orders)
    for import_id, some in itertools.groupby(rejects, itemgetter("import_id")):
        _insert_absent(connection, _rejects.c.line, [*some], _rejects.c.import_id == import_id)


def _insert_absent(
    connection: Connection, key: Column[Any], rows: Collection[Row], *conditions: ColumnElement[bool]
) -> None:
    """Insert the rows for which no row with the same key meets the conditions."""
    keys = [row[key.name] for row in rows]
    there = set(connection.execute(select(key).where(key.in_(keys), *conditions)).scalars())
    if absent := [row for row in rows if row[key.name] not in there]:
        connection.execute(insert(key.table), absent)


def close(engine: Engine, import_id: str, counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Close an import with its totals, unless it is closed; return the totals that it was closed with.

    Args:
        engine: the app's database.
        import_id: an import whose chunks are all loaded.
        counts: the results of `load` for its chunks.
    """
    sums: Counter[str] = Counter()
    for one in counts:
        sums.update(one)
    base = number_of(engine, import_id) << PLACE_BITS
    # Orders that a later import has taken over by now do not count for this one.
    mine = (_orders.c.version >= base) & (_orders.c.version < base + (1 << PLACE_BITS))
    cents = func.coalesce(func.sum(_orders.c.quantity * _orders.c.unit_price_cents), 0)
    totals: dict[str, Any] = {name: sums[name] for name in ("read", "good", "rejected")}
    totals["orders"] = select(func.count()).select_from(_orders).where(mine).scalar_subquery()
    totals["total_cents"] = select(cents).where(mine).scalar_subquery()
    is_open = (_imports.c.import_id == import_id) & (_imports.c.state == "open")
    closed = update(_imports).where(is_open).values(state="closed", closings=_imports.c.closings + 1, **totals)
    query = select(*(_imports.c[name] for name in _TOTALS)).where(_imports.c.import_id == import_id)
    with engine.begin() as connection:
        connection.execute(closed)
        row = connection.execute(query).one()
    return {name: int(value) for name, value in row._mapping.items()}  # noqa: SLF001 - SQLAlchemy's public name for it.
