"""Tasks that are sent in a transaction of SQLAlchemy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from harness.inside.open_transactions import OpenTransactions

INSERT = sa.text("INSERT INTO shop VALUES (1)")


@pytest.fixture
def ended() -> list[tuple[str, bool]]:
    """Return the list of the tasks whose transaction has ended, and whether it was rolled back."""
    return []


@pytest.fixture
def transactions(ended: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTransactions]:
    transactions = OpenTransactions(lambda task, was_rolled_back: ended.append((task, was_rolled_back)))
    listen, listening = event.listen, []

    def noted_listen(target: Any, name: str, heard: Any) -> None:
        listen(target, name, heard)
        listening.append((target, name, heard))

    with monkeypatch.context() as patched:
        patched.setattr(event, "listen", noted_listen)
        transactions.connect()
    yield transactions
    for one in listening:
        event.remove(*one)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.sqlite3")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE shop (number)"))
    yield engine
    engine.dispose()


def test_a_task_that_is_sent_after_a_write_is_told_at_the_commit(
    transactions: OpenTransactions, engine: Engine, ended: list[tuple[str, bool]]
) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT)
        transactions.sending("a")
        transactions.sending("b")
        transactions.sending("a")
        assert ended == []
    assert ended == [("a", False), ("b", False)]
    with engine.begin() as connection:
        connection.execute(INSERT)
    assert len(ended) == 2


@pytest.mark.parametrize("how", ["rollback", "close"])
def test_a_task_that_is_sent_in_what_is_rolled_back_is_told(
    transactions: OpenTransactions, engine: Engine, ended: list[tuple[str, bool]], how: str
) -> None:
    with engine.connect() as connection:
        connection.execute(INSERT)
        transactions.sending("a")
        getattr(connection, how)()
    assert ended == [("a", True)]


def test_each_of_two_transactions_tells_its_own_end(
    transactions: OpenTransactions, engine: Engine, ended: list[tuple[str, bool]], tmp_path: Path
) -> None:
    other = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite3")
    with engine.connect() as one, other.connect() as two:
        two.execute(sa.text("CREATE TABLE shop (number)"))
        two.commit()
        one.execute(INSERT)
        two.execute(INSERT)
        transactions.sending("a")
        two.rollback()
        transactions.sending("b")
        one.commit()
    assert ended == [("a", True), ("a", False), ("b", False)]
    other.dispose()


def test_a_task_that_is_sent_outside_of_a_transaction_that_wrote_is_not_told(
    transactions: OpenTransactions, engine: Engine, ended: list[tuple[str, bool]]
) -> None:
    transactions.sending("before")
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM shop"))
        transactions.sending("after a look")
    with engine.begin() as connection:
        connection.execute(INSERT)
    transactions.sending("after the commit")
    with engine.execution_options(isolation_level="AUTOCOMMIT").begin() as connection:
        connection.execute(INSERT)
        transactions.sending("without a transaction")
    with sa.create_engine(engine.url, isolation_level="AUTOCOMMIT").begin() as connection:
        connection.execute(INSERT)
        transactions.sending("without a transaction")
    assert ended == []


def test_two_watchers_are_not_in_each_others_way(
    request: pytest.FixtureRequest, engine: Engine, ended: list[tuple[str, bool]]
) -> None:
    other = OpenTransactions(lambda *_: pytest.fail("nothing was sent to it"))
    other.connect()
    transactions: OpenTransactions = request.getfixturevalue("transactions")
    with engine.begin() as connection:
        connection.execute(INSERT)
        transactions.sending("a")
    assert ended == [("a", False)]
