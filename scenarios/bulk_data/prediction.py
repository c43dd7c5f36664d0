"""A prediction of what an import must leave behind, from a second reading of the file.

It shares the names of columns with the import, and nothing else: no parser, no rule, no limit, no statement. A
prediction made by the code under test could never disagree with it.
"""

import itertools
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from harness import Finding, Verdict
from scenarios.bulk_data.columns import COLUMNS

_DIFFERENCES = (
    (
        "rows-missing",
        "orders of the file are not in the database",
        "SELECT order_id FROM main.orders EXCEPT SELECT order_id FROM app.orders",
    ),
    (
        "rows-extra",
        "orders in the database are not in the file",
        "SELECT order_id FROM app.orders EXCEPT SELECT order_id FROM main.orders",
    ),
    (
        "rows-differ",
        "orders have other values in the database than in the last row of the file that names them",
        """
        SELECT order_id FROM main.orders AS told JOIN app.orders AS found USING (order_id)
        WHERE (told.customer_email, told.sku, told.quantity, told.unit_price_cents, told.ordered_at)
            IS NOT (found.customer_email, found.sku, found.quantity, found.unit_price_cents, found.ordered_at)
        """,
    ),
    (
        "rows-outdated",
        "orders are as an import has them that began before one that has ended",
        """
        SELECT order_id FROM app.orders
        WHERE version >> 40 < (SELECT max(number) FROM main.imports JOIN app.imports USING (import_id) WHERE closings)
        """,
    ),
    (
        "rejects-differ",
        "lines are rejected, loaded, or given a reason, against what is in them",
        """
        WITH
            told AS (SELECT import_id, line, reason FROM main.imports CROSS JOIN main.rejects),
            found AS (SELECT import_id, line, reason FROM main.imports JOIN app.rejects USING (import_id))
        SELECT import_id || ' line ' || line FROM (SELECT * FROM told EXCEPT SELECT * FROM found)
        UNION SELECT import_id || ' line ' || line FROM (SELECT * FROM found EXCEPT SELECT * FROM told)
        """,
    ),
)
"""The finding's code, its text, and the query for the affected keys, per kind of difference."""


_TOTALS = """
    WITH there AS (SELECT count(*) AS orders, coalesce(sum(quantity * unit_price_cents), 0) AS cents FROM app.orders)
    SELECT import_id, imports.read, imports.good, imports.rejected, imports.orders, imports.total_cents,
        there.orders, there.cents, number = (SELECT max(number) FROM app.imports)
    FROM main.imports AS told JOIN app.imports AS imports USING (import_id) CROSS JOIN there
    WHERE closings > 0 ORDER BY number
"""
"""The query for the totals of each closed import and of the existing rows, and for whether the import began last."""


class Prediction:
    """The rows that imports of a file must leave behind, in a separate database on disk, so that memory stays bounded.

    The prediction does not depend on how often, or under how many import_ids, the file is imported: its orders are
    there once, with the values of the import that began last, and its rejects once for each import_id.
    """

    def __init__(self, file: Path, scratch: Path, delimiter: str = ",") -> None:
        """Read the file, and predict.

        Args:
            file: UTF-8 with a header, as the tasks accept it.
            scratch: the path of the database; the file must not exist yet.
            delimiter: separates the values of a line.
        """
        self._told = sqlite3.connect(scratch, uri=True, isolation_level=None)
        self._told.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            CREATE TABLE orders (order_id TEXT PRIMARY KEY, customer_email, sku, quantity, unit_price_cents, ordered_at)
                WITHOUT ROWID;
            CREATE TABLE rejects (line INTEGER PRIMARY KEY, reason TEXT);
            CREATE TABLE imports (import_id TEXT PRIMARY KEY) WITHOUT ROWID;
            """
        )
        self.read = self.rejected = 0
        lines = _told_lines(file)
        header = next(lines)[1] or b""
        self._delimiter = delimiter
        self._names = [name.strip(_AROUND_NAMES) for name in _told_fields(header.decode("utf-8-sig"), delimiter)]
        while part := list(itertools.islice(lines, 1000)):
            self._take(part)

    def close(self) -> None:
        """Close the database."""
        self._told.close()

    def _take(self, part: list[tuple[int, bytes | None]]) -> None:
        orders, rejects = [], []
        for number, line in part:
            if line == b"":
                continue
            self.read += 1
            try:
                orders.append(_told_values(line, self._names, self._delimiter))
            except _Wrong as wrong:
                rejects.append((number, wrong.args[0]))
        self.rejected += len(rejects)
        self._told.execute("BEGIN")
        # In the order of the file, so that the later row for an order replaces the earlier.
        self._told.executemany("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?, ?)", orders)
        self._told.executemany("INSERT INTO rejects VALUES (?, ?)", rejects)
        self._told.execute("COMMIT")

    def differences(self, found: Path, import_ids: Collection[str]) -> Iterator[Finding]:
        """Yield the differences between the app's database and the prediction.

        Args:
            found: the app's SQLite file; it is only read.
            import_ids: the imports that are predicted; all of them have begun.
        """
        self._told.execute("BEGIN")
        self._told.execute("DELETE FROM imports")
        self._told.executemany("INSERT INTO imports VALUES (?)", ((import_id,) for import_id in import_ids))
        self._told.execute("COMMIT")
        self._told.execute("ATTACH ? AS app", (read_only_uri(found),))
        try:
            for code, text, query in _DIFFERENCES:
                yield from self._compare(code, text, query)
            yield from self._totals()
        finally:
            self._told.execute("DETACH app")

    def _compare(self, code: str, text: str, query: str) -> Iterator[Finding]:
        count = self._told.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: S608 - one of ours.
        if count:
            some = [str(key) for (key,) in self._told.execute(f"{query} ORDER BY 1 LIMIT {_MOST_SHOWN}")]
            text = f"{count} {text}: {', '.join(some)}{', ...' if count > len(some) else ''}"
            yield Finding(code=code, verdict=Verdict.FAIL, count=count, text=text)

    def _totals(self) -> Iterator[Finding]:
        """Check that the totals are those of the file and of the existing rows, whether those are right or wrong."""
        wrong = []
        # The audit reports an import that was never closed, as a missing effect.
        for import_id, *totals, orders, cents, is_last in self._told.execute(_TOTALS):
            expected = [self.read, self.read - self.rejected, self.rejected, orders, cents]
            # Rows that a later import had taken over by the closing are no longer in the totals of an earlier one.
            taken_over = not is_last and totals[3] in range(orders + 1) and totals[4] in range(cents + 1)
            if totals != expected and not (taken_over and totals[:3] == expected[:3]):
                most = "" if is_last else ", the last two or less"
                wrong.append(f"the totals of {import_id} are {tuple(totals)} and must be {tuple(expected)}{most}")
        if wrong:
            more = ", ..." if len(wrong) > _MOST_SHOWN else ""
            text = f"{'; '.join(wrong[:_MOST_SHOWN])}{more}: read, good, rejected, orders, cents"
            yield Finding(code="totals-differ", verdict=Verdict.FAIL, count=len(wrong), text=text)


_MOST_SHOWN = 5
"""The most keys that the text of one kind of difference names."""
_LONGEST = 65_536
"""The most bytes of a line; a longer line is rejected."""


class _Wrong(Exception):  # noqa: N818 - it is no error, it is what a line is.
    """The line must be rejected; the one arg is the reason."""


def _told_lines(file: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield every line with its number; None for one that is too long."""
    with file.open("rb") as stream:
        for number in itertools.count(1):
            line = rest = stream.readline(_LONGEST + 3)
            if not line:
                return
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_LONGEST)
            line = line.rstrip(b"\n")
            line = line[:-1] if line[-1:] == b"\r" else line
            yield number, None if len(line) > _LONGEST else line


def _told_values(line: bytes | None, names: Sequence[str], delimiter: str) -> tuple[str | int, ...]:
    """Return the six values of a line. Raises _Wrong."""
    fields = _told_fields(_told_text(line), delimiter)
    if len(fields) != len(names):
        raise _Wrong("columns")
    values = dict(zip(names, fields, strict=True))
    for column, is_right in _RULES.items():
        if not is_right(values[column]):
            raise _Wrong(column)
    order_id, email, sku, quantity, cents, day = (values[column] for column in COLUMNS)
    return order_id, email, sku, int(quantity), int(cents), day


def _told_text(line: bytes | None) -> str:
    if line is None:
        raise _Wrong("too-long")
    if b"\r" in line:
        raise _Wrong("line-end")
    try:
        return str(line, "utf-8")
    except UnicodeDecodeError:
        raise _Wrong("not-utf8") from None


def _told_fields(text: str, delimiter: str) -> list[str]:
    fields, more, rest = [], delimiter, text
    while more:
        if rest.startswith('"'):
            quoted = re.match(rf'"((?:[^"]|"")*)"({re.escape(delimiter)}|\Z)', rest)
            if quoted is None:
                raise _Wrong("quote")
            field, more, rest = quoted[1].replace('""', '"'), quoted[2], rest[quoted.end() :]
        else:
            field, more, rest = rest.partition(delimiter)
        fields.append(field)
    return fields


_CONTROLS = "0-1F 7F-9F"
_SPACES = "A0 1680 2000-200A 202F 205F 3000"
_LINE_ENDS = "2028-2029"
_FORMATS = """AD 600-605 61C 6DD 70F 890-891 8E2 180E 200B-200F 202A-202E 2060-206F FEFF FFF0-FFFB 110BD 110CD
    13430-1343F 1BCA0-1BCA3 1D173-1D17A E0000-E007F"""
_NEVER_GIVEN = "D800-DFFF E000-F8FF FDD0-FDEF"
_PRIVATE_PLANES = 0xF0000
"""The first code point of the planes for private use."""


def _characters(ranges: str) -> Iterator[str]:
    for part in ranges.split():
        first, _, last = part.partition("-")
        yield from map(chr, range(int(first, 16), int(last or first, 16) + 1))


_AROUND_NAMES = "".join(_characters(f"9 B C 20 {_SPACES}"))
_HIDDEN = frozenset(_characters(f"{_CONTROLS} {_SPACES} {_LINE_ENDS} {_FORMATS} {_NEVER_GIVEN}"))


def _is_shown(text: str) -> bool:
    if text.isascii():
        return not text or (min(text) >= " " and max(text) <= "~")
    # The last two code points of each plane are noncharacters.
    last_two = (0xFFFE, 0xFFFF)
    return _HIDDEN.isdisjoint(text) and all(
        ord(mark) < _PRIVATE_PLANES and ord(mark) % 0x10000 not in last_two for mark in text
    )


def _is_name(text: str) -> bool:
    return len(text) in range(1, 65) and _is_shown(text)


_NOT_LOCAL = frozenset(' "(),:;<>[]\\')


def _is_address(text: str) -> bool:
    local, _, domain = text.partition("@")
    labels = domain.split(".")
    return (
        len(text) in range(255)
        and _is_shown(text)
        and len(local) in range(1, 65)
        and _NOT_LOCAL.isdisjoint(local)
        and len(labels) > 1
        and all(
            len(label) in range(1, 64) and label.isascii() and label.replace("-", "0").isalnum() for label in labels
        )
    )


def _is_number(text: str, possible: range) -> bool:
    return text.isascii() and text.isdigit() and str(int(text[:12])) == text and int(text) in possible


def _is_day(text: str) -> bool:
    try:
        return date(*map(int, text.split("-"))).isoformat() == text
    except (ValueError, TypeError, OverflowError):
        return False


_RULES: Mapping[str, Callable[[str], bool]] = {
    "order_id": _is_name,
    "customer_email": _is_address,
    "sku": _is_name,
    "quantity": lambda text: _is_number(text, range(1, 10_001)),
    "unit_price_cents": lambda text: _is_number(text, range(10_000_001)),
    "ordered_at": _is_day,
}


def read_only_uri(file: Path) -> str:
    """Return the URI with which SQLite opens a file read-only."""
    return f"{file.absolute().as_uri()}?mode=ro"
