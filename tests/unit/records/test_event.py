"""The schema of the journal: who writes a line is held to it, and who reads lines in bulk knows the same members."""

import re
from pathlib import Path

import pytest

import harness.audit
from harness.records.event import LINES, MEMBERS, Kind
from harness.records.journal import Writer

SQL = Path(harness.audit.__file__).with_name("witnesses.sql").read_text()
HEAD = {"n", "t", "kind", "task"}
"""What every line has."""


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, node="node", role="producer")


def test_each_kind_of_line_has_its_members() -> None:
    assert set(LINES) == set(Kind)
    assert MEMBERS[Kind.RECEIVED] == {"name", "redelivered", "eta"}
    assert MEMBERS[Kind.REVOKED] == {"reason"}
    assert MEMBERS[Kind.DISCARDED] == {"reason", "content_type"}
    assert not any(members & HEAD for members in MEMBERS.values())


def test_a_member_that_such_a_line_does_not_have_is_refused(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a line 'received' has no member colour, size"):
        writer.write(Kind.RECEIVED, "a", name="mail", size=1, colour="red")
    writer.write(Kind.RECEIVED, "a", name="mail", redelivered=False, eta=1.0)
    writer.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert "colour" not in path.read_text()
    assert '"redelivered":false' in path.read_text()


def test_settings_may_be_any_that_celery_has(writer: Writer, tmp_path: Path) -> None:
    writer.write(Kind.SETTINGS, task_acks_late=True)
    writer.close()
    (path,) = tmp_path.glob("*.jsonl")
    assert '"task_acks_late":true' in path.read_text()


def test_the_audit_reads_no_member_that_no_line_has() -> None:
    query = SQL.partition("-- name: lines\n")[2].partition("-- name:")[0]
    columns = set(re.findall(r"(\w+): '", query.partition("columns = {")[2]))
    assert {"due", "redelivered", "peak_kb"} <= columns
    assert columns - HEAD <= set().union(*MEMBERS.values())
