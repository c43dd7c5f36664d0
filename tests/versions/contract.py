"""What holds on every Celery: twenty tasks, their results, what they send, a retry and a failure are accounted for."""

from harness.audit.audit import Audit
from harness.records.expectation import Expect
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from tests.docker.accounts import failing, met

SENT_BY_TASKS = 2 + 3 + 4
"""What `fan_out`, `in_a_row` and `together` send; Celery's own `chord_unlock` comes on top."""
VALUES: tuple[Json, ...] = (
    None,
    True,
    0,
    -1.5,
    "",
    "Grüße, 世界",
    [1, [2, {"three": None}]],
    {"a": {"b": [1, 2]}, "ä": "ö"},
    # The journal has only the beginning of this one, and a digest.
    ["long"] * 500,
)
RESULTS: tuple[tuple[str, list[Json], Json], ...] = (
    *(("give", [value], value) for value in VALUES),
    *(("add", [number, 1], number + 1) for number in range(6)),
    ("fan_out", [2], 2),
    ("in_a_row", [], "True"),
    ("together", [], "True"),
    ("at_last", [], 1),
)
"""Per task that succeeds: its name, its arguments and its result."""
WRONG: tuple[tuple[str, list[Json], Json], ...] = (
    ("add", [1, 2], 4),
    ("give", [True], 1),
    ("give", [["long"] * 500], ["long"] * 501),
)
"""The same with other results than the tasks have."""


def check_all_is_accounted_for(stack: Stack) -> Audit:
    """Send twenty tasks, and find every one of them, and what they sent, as expected."""
    for name, args, result in RESULTS:
        stack.producer.send(name, args, expect=Expect(result=result))
    stack.producer.send("fail", expect=Expect(state="FAILURE", error="LookupError"))
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: audit.entries - 1, Fate.FAILED: 1}, audit.text()
    assert len(RESULTS) + 1 == 20
    assert audit.entries == 20 + SENT_BY_TASKS + 1
    return audit


def check_wrong_results_are_wrong(stack: Stack) -> None:
    """Expect other results than the tasks have, and find each of them."""
    before = met(stack.settle())
    for name, args, result in WRONG:
        stack.producer.send(name, args, expect=Expect(result=result))
    audit = stack.settle()
    assert met(audit) == {**before, Fate.WRONG: len(WRONG)}, audit.text()
    assert failing(audit) == {"wrong"}
