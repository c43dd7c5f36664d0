"""PostgreSQL and Redis beside the broker: a database for each stack, and results in PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from harness.audit.audit import audit
from harness.audit.run_folder import RunFolder
from harness.faults import LockResults
from harness.project.needs import ResultsIn, Service
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until
from tests.docker.accounts import failing, met, said

SPEC = StackSpec(
    app="warehouse",
    app_folder=Path("tests/docker/apps").absolute(),
    options=["--concurrency=2", "--without-mingle", "--without-gossip"],
    env={"DATABASE_URL": "{database.url}", "CACHE": "{redis.url}"},
    prepare=["python warehouse.py"],
    services=[Service.POSTGRESQL, Service.REDIS],
    results=ResultsIn.POSTGRESQL,
)
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    """Yield a session of its own, whose servers are gone at the end."""
    with SharedParts() as session:
        yield session


@pytest.fixture
def stack(session: SharedParts, tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack with both services and its results in PostgreSQL."""
    with Stack(session, SPEC, RunFolder.create(tmp_path, "services")) as stack:
        yield stack


def test_an_app_with_a_database_and_results_in_postgresql_is_accounted_for(stack: Stack) -> None:
    for number in range(3):
        stack.producer.send("stock.put", [f"article {number}"])
    stack.settle()
    stack.producer.send("stock.deliver", [["a", "b"]], expect=Expect(result=2))
    stack.producer.send("stock.refuse", expect=Expect(state="FAILURE", error="LookupError"))
    found = stack.settle()
    # The test reads the app's data as the app does.
    with psycopg.connect(stack.leases[Service.POSTGRESQL].url_outside.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM stock").fetchone() == (5,)
    assert found.verdict is Verdict.PASS, found.text()
    # With them, the task that waits for the members of the chord.
    assert met(found) == {Fate.OK: 8, Fate.FAILED: 1}
    assert b"5" in {row.result for row in stack.results.rows()}
    stack.close()
    # The folder alone says the same, without the database, and holds no password.
    assert audit(stack.folder).fates == found.fates
    assert "stack_" not in "".join(path.read_text() for path in stack.folder.path.glob("*.json"))


def test_a_row_that_is_deleted_from_postgresql_is_missed(stack: Stack) -> None:
    sent = stack.producer.send("stock.put", ["article"], expect=Expect(result=1))
    stack.settle()
    wrong = stack.producer.send("stock.put", ["article"], expect=Expect(result=7))
    assert met(stack.settle()) == {Fate.OK: 1, Fate.WRONG: 1}
    stack.producer.send("stock.forget", [sent.task], expect=Expect(result=1))
    found = stack.settle()
    assert met(found) == {Fate.OK: 1, Fate.UNRECORDED: 1, Fate.WRONG: 1}, found.text()
    assert failing(found) == {"row-deleted", "unrecorded", "wrong"}
    assert wrong.task in said(found, "wrong")


def test_a_result_waits_for_a_locked_table(stack: Stack) -> None:
    results_url = stack.results.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def is_one_waiting() -> bool:
        with psycopg.connect(results_url) as connection:
            return connection.execute(waiting).fetchone() == (1,)

    with stack.inject(LockResults()) as fault:
        sent = stack.producer.send("stock.put", ["article"])
        wait_until(is_one_waiting, what="a worker waits for the lock", timeout_s=20)
        assert stack.results.row(sent.task) is None
    found = stack.settle()
    assert (found.verdict, fault.landed(), fault.tasks) == (Verdict.PASS, None, (sent.task,)), found.text()


def test_two_stacks_see_nothing_of_each_other(session: SharedParts) -> None:
    services = session.services
    ours, theirs = services.lease(Service.POSTGRESQL), services.lease(Service.POSTGRESQL)
    wrong = f"{ours.url_outside.rpartition('/')[0]}/{theirs.database}".replace("+psycopg", "")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(wrong)
    services.end(Service.POSTGRESQL, ours)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(ours.url_outside.replace("+psycopg", ""))
    with psycopg.connect(theirs.url_outside.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    services.end(Service.POSTGRESQL, theirs)
    ours, theirs = services.lease(Service.REDIS), services.lease(Service.REDIS)
    assert ours.database != theirs.database
    with redis.Redis.from_url(ours.url_outside) as client:
        client.set("key", "value")
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.flushall()
        services.end(Service.REDIS, ours)
        with pytest.raises(redis.exceptions.RedisError):
            client.get("key")
    services.end(Service.REDIS, theirs)
    # What was given back is empty when it is taken again.
    again = [services.lease(Service.REDIS) for _ in range(2)]
    assert {lease.database for lease in again} == {ours.database, theirs.database}
    for lease in again:
        with redis.Redis.from_url(lease.url_outside) as client:
            assert client.dbsize() == 0
        services.end(Service.REDIS, lease)
