"""The records, and that what is written to a file is what is read back."""

import json
from typing import Any

import pytest

from harness.records.expectation import Delivery, Effects, Expect, Promise, mail
from harness.records.verdict import Finding, Verdict


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([], Verdict.PASS),
        ([Verdict.PASS, Verdict.UNKNOWN], Verdict.UNKNOWN),
        ([Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS], Verdict.FAIL),
    ],
)
def test_the_worst_verdict_wins(verdicts: list[Verdict], worst: Verdict) -> None:
    assert Verdict.worst(verdicts) is worst


def test_only_a_pass_exits_with_0() -> None:
    assert {verdict.value: verdict.exit_code for verdict in Verdict} == {"pass": 0, "fail": 1, "unknown": 3}


@pytest.mark.parametrize(
    "promise",
    [
        Promise(),
        Promise(delivery=Delivery.AT_MOST_ONCE, effects=Effects.ONCE_UNLESS_KILLED, recorded=False, deadline_s=1.5),
        Promise(memory_growth_mb=0),
    ],
)
def test_a_promise_comes_back_as_it_was_written(promise: Promise) -> None:
    assert Promise.from_json(json.loads(json.dumps(promise.to_json()))) == promise


@pytest.mark.parametrize(
    "damage", [{"delivery": "sometimes"}, {"effects": None}, {"deadline_s": "soon"}, {"deadline_s": []}]
)
def test_a_promise_that_was_tampered_with_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Promise.from_json(Promise().to_json() | damage)


def test_a_promise_that_was_written_before_there_was_a_growth_promises_none() -> None:
    written = Promise(memory_growth_mb=1.0).to_json()
    del written["memory_growth_mb"]
    assert Promise.from_json(written).memory_growth_mb is None


@pytest.mark.parametrize("growth_mb", [-0.5, float("nan")])
def test_no_negative_growth_can_be_promised(growth_mb: float) -> None:
    with pytest.raises(ValueError, match="cannot be promised"):
        Promise(memory_growth_mb=growth_mb)


def test_a_finding_comes_back_as_it_was_written() -> None:
    finding = Finding(code="lost", verdict=Verdict.FAIL, count=2, text="gone", tasks=("a", "b"))
    assert Finding.from_json(json.loads(json.dumps(finding.to_json()))) == finding


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (mail(to="zoe@example.com"), "mail:to=zoe@example.com"),
        (mail(to=" Zoe@Example.COM ", subject=" A\n Welcome "), "mail:to=zoe@example.com;subject=A Welcome"),
        (mail(subject="50% off; now"), "mail:subject=50% off; now"),
        (mail(to='"a;subject=b%"@c', subject="d"), 'mail:to="a%3Bsubject=b%25"@c;subject=d'),
        ("mail:to=Zoe@Example.com;subject=A  b;subject=c", "mail:to=zoe@example.com;subject=A b;subject=c"),
        ("mail:subject= A  b", "mail:subject=A b"),
        ("mail:Welcome@Example.com", "mail:Welcome@Example.com"),
        ("row:to=A", "row:to=A"),
        ("mail:to=İ@example.com", "mail:to=İ@example.com"),
    ],
)
def test_a_mail_is_expected_by_recipient_and_subject(key: str, said: str) -> None:
    assert Expect(effects=[key]).to_json() == {"effects": [said]}


def test_a_mail_without_any_property_cannot_be_expected() -> None:
    with pytest.raises(ValueError, match="by `to`, by `subject`, or by both"):
        mail()


@pytest.mark.parametrize(
    ("expect", "line"),
    [
        (Expect(), {}),
        (Expect(result=None), {"expect": {"result": None}}),
        (Expect(effects=[]), {"effects": []}),
        (
            Expect(state="FAILURE", error="MailRefused", effects=("mail:1",)),
            {"expect": {"state": "FAILURE", "error": "MailRefused"}, "effects": ["mail:1"]},
        ),
    ],
)
def test_an_expectation_says_only_what_it_demands(expect: Expect, line: dict[str, Any]) -> None:
    assert expect.to_json() == line
