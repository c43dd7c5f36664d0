"""The tasks of an import, and the tables that they write."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError

from scenarios.app import prepare_sqlite
from scenarios.bulk_data import tables, tasks
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.order_row import Row, read_row
from scenarios.bulk_data.tables import close, create_tables, register, store
from scenarios.bulk_data.tasks import BATCH_ROWS, close_import, import_orders, load, load_chunk
from tests.unit.scenarios.bulk_data.orders import GOOD, LAYOUT, codes, contents, rows, run_import, surveyed, write

# The tables


@pytest.fixture(params=["at once", "portably"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write a batch, one after the other."""
    if request.param == "portably":
        monkeypatch.setattr(tables, "_write_at_once", tables.write_portably)


def order(number: int, version: int, quantity: int = 1) -> Row:
    return read_row(GOOD, LAYOUT) | {"order_id": f"A-{number}", "quantity": quantity, "version": version}


@pytest.mark.usefixtures("paths")
def test_the_highest_version_wins_whatever_comes_first_and_however_often(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - test data.
    engine = create_engine(f"sqlite:///{tmp_path}/a.sqlite3")
    prepare_sqlite(engine)
    create_tables(engine)
    for attempt in range(10):
        written = [order(chance.randrange(8), version, version % 7 + 1) for version in range(1, 40)]
        rejects = [{"import_id": "i", "line": line, "reason": "quote"} for line in range(10)]
        expected = {row["order_id"]: row["version"] for row in written}
        batches = [written[at : at + 5] for at in range(0, 40, 5)] * 2
        chance.shuffle(batches)
        for batch in batches:
            store(engine, {row["order_id"]: row for row in batch}.values(), chance.sample(rejects, 4))
        store(engine, [], rejects)
        found = rows(engine, "orders")
        assert {row[0]: row[6] for row in found} == expected, attempt
        assert all(row[3] == row[6] % 7 + 1 for row in found)
        assert rows(engine, "rejects") == [("i", line, "quote") for line in range(10)]
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM orders")
            connection.exec_driver_sql("DELETE FROM rejects")
    engine.dispose()


@pytest.mark.usefixtures("paths")
def test_the_later_row_of_a_file_wins_in_any_order_of_the_chunks_and_a_second_run_changes_nothing(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    found = surveyed(path, chunk_bytes=2000)
    register(engine, "i", found)
    chunks = [*found.chunks, *found.chunks]
    random.Random(1).shuffle(chunks)  # noqa: S311 - test data.
    done = {chunk.offset: load(str(path), "i", chunk, engine) for chunk in chunks}
    close(engine, "i", done.values())
    assert codes(path, tmp_path) == []
    before = [rows(engine, table) for table in ("imports", "orders", "rejects")]
    run_import(path, engine, chunk_bytes=777)
    assert [rows(engine, table) for table in ("imports", "orders", "rejects")] == before


def test_a_later_import_wins_over_an_earlier_one_also_when_that_is_loaded_again(tmp_path: Path, engine: Engine) -> None:
    earlier = write(tmp_path / "earlier.csv", b"", b"", b"", GOOD, GOOD.replace(b"A-1", b"A-2"))
    later = write(tmp_path / "later.csv", GOOD.replace(b",2,", b",3,"))
    for path, import_id in ((earlier, "earlier"), (later, "later"), (earlier, "earlier")):
        totals = run_import(path, engine, import_id)
    assert [row[3] for row in rows(engine, "orders")] == [3, 2]
    assert totals == {"read": 2, "good": 2, "rejected": 0, "orders": 2, "total_cents": 5000}


def test_batches_are_bounded_also_where_every_line_names_the_same_order(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(_engine: Engine, orders: Any, rejects: Any) -> None:
        sizes.append(len(orders) + len(rejects))

    monkeypatch.setattr(tasks, "store", counted)
    numbered = [GOOD.replace(b"A-1", f"A-{number}".encode()) for number in range(BATCH_ROWS)]
    run_import(write(tmp_path / "a.csv", *numbered, *[b"?"] * (BATCH_ROWS + 5), *[GOOD] * 3000), engine, "a", 10**6)
    assert sizes == [BATCH_ROWS, BATCH_ROWS, 6]


@pytest.mark.parametrize(("times", "gives_up"), [(4, False), (5, True)])
def test_a_batch_that_somebody_else_got_ahead_of_is_written_again_but_not_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, times: int, gives_up: bool
) -> None:
    real = tables.write_portably
    left = iter(range(times))

    def overtaken(connection: Connection, orders: Any, rejects: Any) -> None:
        real(connection, orders, rejects)
        if next(left, None) is not None:
            raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed"))

    monkeypatch.setattr(tables, "_write_at_once", overtaken)
    if gives_up:
        with pytest.raises(IntegrityError):
            store(engine, [order(1, 1)], [])
    else:
        store(engine, [order(1, 1)], [])
    assert len(rows(engine, "orders")) == (not gives_up)


def test_postgresql_is_told_to_update_only_what_is_older_and_to_leave_known_rejects() -> None:
    said: list[str] = []
    connection: Any = SimpleNamespace(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]  # SQLAlchemy's own is not annotated.
        execute=lambda statement, _rows: said.append(str(statement.compile(dialect=postgresql.dialect()))),  # type: ignore[no-untyped-call]  # The same.
    )
    tables._write_at_once(connection, [order(1, 1)], [{"import_id": "i", "line": 2, "reason": "quote"}])  # noqa: SLF001 - what one database is told.
    assert "ON CONFLICT (order_id) DO UPDATE SET" in said[0]
    assert said[0].endswith("WHERE orders.version < excluded.version")
    assert said[1].endswith("ON CONFLICT DO NOTHING")


def test_an_import_is_closed_once(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "orders.csv", GOOD, GOOD.replace(b",2,", b",3,"), b"?")
    totals = run_import(path, engine)
    assert totals == {"read": 3, "good": 2, "rejected": 1, "orders": 1, "total_cents": 3750}
    assert close(engine, "i", [{"read": 99, "good": 99, "rejected": 0}]) == totals
    ((_, _, _, _, state, closings, *written),) = rows(engine, "imports")
    assert (state, closings, *written) == ("closed", 1, *totals.values())


# The tasks


class Chord:
    """Stands for Celery's, and keeps what would have been published."""

    def __init__(self, log: list[Any], error: Exception | None = None) -> None:
        """Nothing is published; with an error, nothing could be."""
        self.log = log
        self.error = error
        self.header: list[Any] = []
        self.group = ""

    def __call__(self, header: list[Any], body: Any) -> "Chord":
        self.header = header
        assert body.task == "scenarios.bulk_data.close_import"
        return self

    def set(self, *, task_id: str) -> "Chord":
        self.group = task_id
        return self

    def apply_async(self, *, task_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.log.append((self.group, task_id, [(one.options["task_id"], one.kwargs) for one in self.header]))


def test_a_second_run_of_the_import_task_sends_the_same_ids_and_saves_its_group_once(
    tmp_path: Path, engine: Engine, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(tasks, "chord", Chord(sent))
    path = write(tmp_path / "orders.csv", *[GOOD] * 20)
    given = {"path": str(path), "import_id": "i", "chunk_bytes": 200}
    first, second, other = (import_orders.apply(kwargs=given, task_id=one) for one in ("a", "a", "b"))
    assert first.result == second.result
    assert first.result["chunks"] == 4
    assert sent[0] == sent[1]
    assert not {task for task, _ in sent[0][2]} & {task for task, _ in sent[2][2]}
    saved = {row[1]: json.loads(row[2]) for row in contents(results, "celery_tasksetmeta")}
    assert saved.keys() == {first.result["group"], other.result["group"]}
    assert [task for (task, _), _ in saved[first.result["group"]][1]] == [task for task, _ in sent[0][2]]
    assert len(rows(engine, "imports")) == 1
    for _, kwargs in sent[0][2]:
        load_chunk.apply(args=(str(path), "i"), kwargs=kwargs)
    assert len(rows(engine, "orders")) == 1


def test_the_group_is_saved_before_anything_is_sent(
    tmp_path: Path, engine: Engine, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del engine
    monkeypatch.setattr(tasks, "chord", Chord([], BrokerError("gone")))
    path = write(tmp_path / "orders.csv", GOOD)
    monkeypatch.setattr(import_orders, "retry", lambda **_: Retry("later"))
    import_orders.apply(kwargs={"path": str(path), "import_id": "i"})
    assert len(contents(results, "celery_tasksetmeta")) == 1


ARGUMENTS = [
    (import_orders, "register", {"path": "orders.csv", "import_id": "i"}),
    (load_chunk, "load", {"path": "orders.csv", "import_id": "i", "offset": 0, "length": 1, "first_line": 2}),
    (close_import, "close", {"results": [], "import_id": "i"}),
]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("task", "does", "given"), ARGUMENTS)
@pytest.mark.parametrize("answer", [Retry("later"), Reject("no broker", requeue=False)])
def test_a_broken_database_is_tried_again_and_no_task_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, task: Any, does: str, given: dict[str, Any], answer: Exception
) -> None:
    write(tmp_path / "orders.csv", GOOD)
    monkeypatch.chdir(tmp_path)

    def broken(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    def retry(*, countdown: float, **_: Any) -> Exception:
        assert 0 <= countdown <= tasks.BACKOFF_LIMIT_S
        if isinstance(answer, Reject):
            raise answer
        return answer

    monkeypatch.setattr(tasks, does, broken)
    monkeypatch.setattr(task, "retry", retry)
    with pytest.raises(type(answer)) as caught:
        task.run(**given)
    if isinstance(caught.value, Reject):
        assert caught.value.requeue


@pytest.mark.parametrize("task", [import_orders, load_chunk, close_import])
def test_a_task_whose_pool_process_died_runs_again_within_seconds(task: Any) -> None:
    assert task.retry_on_worker_lost
    assert task.default_retry_delay <= 5
