"""The receipts: how they look, the outbox, and the task against a real mailbox on loopback."""

import csv
import email
import email.policy
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.backends.base import BaseBackend
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from sqlalchemy import Engine, create_engine

from harness import Drive, Verdict
from harness.containers.mailbox import Mail
from harness.records.values import Json
from harness.scenario import Steps
from scenarios.app import app, database, prepare_sqlite
from scenarios.emails import limits, mail_server
from scenarios.emails import scenario as emails
from scenarios.emails.mail_server import MailDeferred, MailRefused
from scenarios.emails.order import Order
from scenarios.emails.outbox import ClaimHeld, Outbox
from scenarios.emails.prediction import expected_result, make_order, message_id
from scenarios.emails.receipt import render
from scenarios.emails.scenario import scenario
from scenarios.emails.tasks import send_once, send_receipt
from tests.fakes.mail_server import serving

LEASE_S = 20


class Clock:
    """A Unix time that moves only when told."""

    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/app.sqlite3")
    prepare_sqlite(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(engine: Engine, clock: Clock) -> Outbox:
    return Outbox(engine, lease_s=LEASE_S, now=clock)


@pytest.fixture
def order() -> Order:
    return make_order(7, seed=1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the run folder of a mailbox that listens; the app knows where the mailbox and the database are."""
    with serving(tmp_path) as port:
        monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SMTP_PORT", str(port))
        monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/app.sqlite3")
        monkeypatch.chdir(tmp_path)  # An eager task, too, opens the results of the app, below the current folder.
        yield tmp_path
        database(lock_timeout_s=limits.LOCK_TIMEOUT_S).dispose()


def write_rule(run: Path, **given: Json) -> None:
    rule = {"id": 1, "recipient": "*", "reply": None, "delay_s": 0, "times": None} | given
    (run / "control").mkdir()
    (run / "control/mailbox.json").write_text(json.dumps({"rules": [rule]}))


def mails(run: Path) -> list[dict[str, Any]]:
    path = run / "effects/mailbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def attempts(run: Path) -> int:
    return len((run / "control/mailbox-used.jsonl").read_text().splitlines())


def outcome_of(order: Order, **options: Any) -> tuple[str, Any]:
    result = send_receipt.apply(args=(order,), **options)
    return result.state, result.result


# The orders


def test_the_same_number_and_seed_make_the_same_order_and_another_seed_another() -> None:
    assert make_order(3, seed=1) == make_order(3, seed=1)
    assert make_order(3, seed=1) != make_order(3, seed=2)


def test_orders_are_json_with_one_to_six_lines_and_names_from_everywhere() -> None:
    orders = [make_order(number, seed=1) for number in range(200)]
    assert json.loads(json.dumps(orders)) == orders
    assert {len(order["lines"]) for order in orders} == {1, 2, 3, 4, 5, 6}
    assert sum(not order["customer"]["name"].isascii() for order in orders) > 100
    assert len({message_id(order) for order in orders}) == 200
    assert len({order["customer"]["email"] for order in orders}) == 200


# How a receipt looks


def received(order: Order) -> EmailMessage:
    raw = render(order, task_id="t-1").as_bytes()
    assert raw.isascii()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_every_name_arrives_as_it_was_written() -> None:
    for number in range(50):
        order = make_order(number, seed=1)
        message = received(order)
        (customer,) = message["To"].addresses
        assert (customer.display_name, customer.addr_spec) == (order["customer"]["name"], order["customer"]["email"])
        body = message.get_body(("plain",))
        assert body is not None
        assert f"Dear {order['customer']['name']}," in body.get_content()


def test_a_receipt_says_the_total_in_text_and_html(order: Order) -> None:
    order["lines"] = [{"sku": "A", "title": "<raw> & ripe", "quantity": 3, "unit_price_cents": 1005}]
    message = received(order)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert f"Total: 30.15 {order['currency']}" in plain.get_content()
    assert "<raw> & ripe" in plain.get_content()
    assert "&lt;raw&gt; &amp; ripe" in html.get_content()
    assert "30.15" in html.get_content()


def test_the_lines_are_attached_as_a_table(order: Order) -> None:
    (attachment,) = received(order).iter_attachments()
    assert attachment.get_filename() == f"receipt-{order['id']}.csv"
    rows = list(csv.DictReader(attachment.get_content().splitlines()))
    assert [row["title"] for row in rows] == [line["title"] for line in order["lines"]]


def test_a_receipt_carries_its_task_and_the_id_that_the_scenario_predicts(order: Order) -> None:
    message = received(order)
    assert message["X-Task-ID"] == "t-1"
    assert message["Message-ID"] == f"<{message_id(order)}>"


def test_a_name_cannot_smuggle_in_a_header(order: Order) -> None:
    order["customer"]["name"] = "Eve\r\nBcc: all@example.com"
    with pytest.raises(ValueError, match="invalid arguments"):
        render(order, task_id="t-1")


# The outbox


def test_the_first_claim_wins_and_the_second_is_told_how_long_it_holds(outbox: Outbox, clock: Clock) -> None:
    assert outbox.claim("k", "first")
    clock.now_s += 5
    with pytest.raises(ClaimHeld) as held:
        outbox.claim("k", "second")
    assert held.value.args == (LEASE_S - 5,)


def test_a_claim_is_taken_over_when_its_lease_is_over_and_not_before(outbox: Outbox, clock: Clock) -> None:
    outbox.claim("k", "first")
    clock.now_s += LEASE_S - 0.001
    with pytest.raises(ClaimHeld):
        outbox.claim("k", "second")
    clock.now_s += 0.001
    assert outbox.claim("k", "second")
    with pytest.raises(ClaimHeld):
        outbox.claim("k", "third")


def test_a_sent_mail_is_never_claimed_again(outbox: Outbox, clock: Clock) -> None:
    outbox.claim("k", "first")
    outbox.record_sent("k", "first")
    clock.now_s += 10 * LEASE_S
    assert not outbox.claim("k", "second")


def test_a_released_mail_can_be_claimed_at_once(outbox: Outbox) -> None:
    outbox.claim("k", "first")
    outbox.release("k", "first")
    assert outbox.claim("k", "second")


def test_nobody_releases_the_claim_of_another_nor_what_was_sent(outbox: Outbox) -> None:
    outbox.claim("k", "first")
    outbox.release("k", "second")
    with pytest.raises(ClaimHeld):
        outbox.claim("k", "third")
    outbox.record_sent("k", "first")
    outbox.release("k", "first")
    assert not outbox.claim("k", "third")


def test_a_sent_mail_is_recorded_even_if_its_claim_is_gone(outbox: Outbox) -> None:
    outbox.record_sent("k", "first")
    assert not outbox.claim("k", "second")


def test_of_many_that_claim_at_once_exactly_one_wins_each_mail(engine: Engine) -> None:
    keys = [f"k{number}" for number in range(20)]
    start = threading.Barrier(8)

    def play(owner: str) -> list[str]:
        start.wait(5)
        outbox = Outbox(engine, lease_s=LEASE_S)  # All of them make the table, too.
        won = []
        for key in keys:
            try:
                if outbox.claim(key, owner):
                    won.append(key)
            except ClaimHeld:
                continue
        return won

    with ThreadPoolExecutor(8) as pool:
        wins = Counter(key for won in pool.map(play, "abcdefgh") for key in won)
    assert wins == Counter(keys)


def test_the_database_is_in_wal_mode(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


# Sending once


def test_a_mail_that_was_not_taken_gives_up_its_claim(order: Order, outbox: Outbox) -> None:
    message = render(order, task_id="t-1")
    for error in (MailDeferred(451, "later"), MailRefused(550, "no"), SoftTimeLimitExceeded(), SystemExit()):

        def fail(_message: EmailMessage, error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            send_once(message, outbox, send=fail)
        assert outbox.claim(message_id(order), "next")
        outbox.release(message_id(order), "next")


def test_a_time_limit_between_the_250_and_the_record_does_not_undo_the_mail(
    order: Order, engine: Engine, clock: Clock
) -> None:
    class Interrupted(Outbox):
        strikes = 1

        def record_sent(self, key: str, owner: str) -> None:
            self.strikes -= 1
            if self.strikes == 0:
                raise SoftTimeLimitExceeded
            super().record_sent(key, owner)

    outbox = Interrupted(engine, lease_s=LEASE_S, now=clock)
    send_once(render(order, task_id="t-1"), outbox, send=lambda _: None)
    assert not outbox.claim(message_id(order), "next")


def test_a_mail_whose_record_failed_stays_claimed(order: Order, engine: Engine, clock: Clock) -> None:
    class Broken(Outbox):
        def record_sent(self, key: str, owner: str) -> None:
            raise OSError(key, owner)

    outbox = Broken(engine, lease_s=LEASE_S, now=clock)
    with pytest.raises(OSError, match="receipt"):
        send_once(render(order, task_id="t-1"), outbox, send=lambda _: None)
    with pytest.raises(ClaimHeld):
        outbox.claim(message_id(order), "next")


# The task


def test_a_receipt_is_sent_and_the_result_is_the_predicted_one(run: Path, order: Order) -> None:
    assert outcome_of(order, task_id="t-1") == ("SUCCESS", expected_result(order))
    (mail,) = mails(run)
    assert (mail["key"], mail["task"]) == (f"mail:{message_id(order)}", "t-1")
    assert mail["recipients"] == expected_result(order)["recipients"]


def test_a_second_run_sends_nothing_and_returns_the_same(run: Path, order: Order) -> None:
    assert outcome_of(order) == outcome_of(order) == ("SUCCESS", expected_result(order))
    assert len(mails(run)) == 1


def test_a_4xx_is_retried_until_the_mail_is_taken(run: Path, order: Order) -> None:
    write_rule(run, reply="451 4.3.0 try again later", times=3)
    assert outcome_of(order) == ("SUCCESS", expected_result(order))
    assert attempts(run) == 3
    assert len(mails(run)) == 1


def test_a_4xx_for_ever_ends_in_an_accounted_failure(run: Path, order: Order) -> None:
    write_rule(run, reply="451 4.3.0 try again later")
    state, error = outcome_of(order)
    assert (state, type(error), error.args) == ("FAILURE", MailDeferred, (451, "4.3.0 try again later"))
    assert attempts(run) == send_receipt.max_retries + 1
    assert mails(run) == []


def test_a_5xx_fails_at_once_and_another_order_may_use_the_server(run: Path, order: Order) -> None:
    write_rule(run, recipient=order["customer"]["email"], reply="550 5.1.1 no such user")
    state, error = outcome_of(order)
    assert (state, type(error), error.args) == ("FAILURE", MailRefused, (550, "5.1.1 no such user"))
    assert attempts(run) == 1
    assert outcome_of(make_order(8, seed=1))[0] == "SUCCESS"


def test_a_refusal_survives_the_result_backend() -> None:
    backend = BaseBackend(app=app)
    stored = json.loads(json.dumps(backend.prepare_exception(MailRefused(550, "no such user"), "json")))
    error = backend.exception_to_python(stored)
    assert (type(error), error.args) == (MailRefused, (550, "no such user"))


@pytest.mark.usefixtures("run")
def test_no_server_is_retried(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_PORT", "1")
    state, error = outcome_of(order, retries=send_receipt.max_retries)
    assert (state, type(error)) == ("FAILURE", MailDeferred)
    assert "ConnectionRefusedError" in error.args[1]


@pytest.mark.usefixtures("run")
def test_a_run_that_finds_a_living_claim_comes_back_after_its_lease(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    Outbox(database(lock_timeout_s=limits.LOCK_TIMEOUT_S)).claim(message_id(order), "another run")
    countdowns = []

    def retry(*, exc: Exception, countdown: float, throw: bool) -> Retry:
        assert isinstance(exc, ClaimHeld)
        assert not throw
        countdowns.append(countdown)
        return Retry(exc=exc)

    monkeypatch.setattr(send_receipt, "retry", retry)
    assert outcome_of(order)[0] == "RETRY"
    assert countdowns == [pytest.approx(limits.LEASE_S, abs=1)]


@pytest.mark.usefixtures("run")
def test_a_retry_that_cannot_be_published_leaves_the_message_in_the_broker(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retry(**_: Any) -> Retry:
        raise Reject(OSError("no broker"), requeue=False)

    monkeypatch.setenv("SMTP_PORT", "1")
    monkeypatch.setattr(send_receipt, "retry", retry)
    with pytest.raises(Reject) as rejected:
        send_receipt(order)
    assert rejected.value.requeue is True


def test_a_slow_server_is_given_up(run: Path, order: Order) -> None:
    write_rule(run, delay_s=3)
    with pytest.raises(MailDeferred, match="timed out"):
        mail_server.send(render(order, task_id="t-1"), limit_s=0.1)
    assert attempts(run) == 1
    assert mails(run) == []


@pytest.mark.parametrize(("limit_s", "taken"), [(25, False), (1000, True)])
def test_all_steps_of_a_conversation_share_one_deadline(
    run: Path, order: Order, monkeypatch: pytest.MonkeyPatch, *, limit_s: float, taken: bool
) -> None:
    ten_more_each_time = itertools.count(0, 10)
    monkeypatch.setattr(mail_server, "time", SimpleNamespace(monotonic=lambda: next(ten_more_each_time)))
    message = render(order, task_id="t-1")
    if taken:
        mail_server.send(message, limit_s=limit_s)
    else:
        with pytest.raises(MailDeferred, match="took too long"):
            mail_server.send(message, limit_s=limit_s)
    assert len(mails(run)) == taken


def test_every_process_has_a_database_engine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/app.sqlite3")
    here = database()
    assert database() is here
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert database() is not here


# The check


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """Return a mailbox as a stack has it, which a test can fill with mails."""
    taken: list[Mail] = []
    return SimpleNamespace(mailbox=SimpleNamespace(messages=lambda: taken), folder=tmp_path)


def deliver(stack: Any, number: int, order: Order | None = None) -> None:
    """Have the receipt of an order arrive; of another one, if that is given."""
    path = stack.folder / f"{len(stack.mailbox.messages())}.eml"
    path.write_bytes(render(order or make_order(number, seed=1), task_id=f"t-{number}").as_bytes())
    key = f"mail:{message_id(make_order(number, seed=1))}"
    stack.mailbox.messages().append(Mail(key=key, task=f"t-{number}", recipients=(), path=path))


def test_receipts_as_they_have_to_be_are_nothing_to_speak_of(stack: Any) -> None:
    for number in range(12):
        deliver(stack, number)
    assert list(scenario.check(stack, Drive(count=12, seed=1))) == []
    # Whatever else came, nobody ordered it.
    assert list(scenario.check(stack, Drive(count=0, seed=1))) == []


def renamed(order: Order) -> None:
    order["customer"]["name"] += " jr."


def retitled(order: Order) -> None:
    order["lines"][0]["title"] = "?"


def dearer(order: Order) -> None:
    order["lines"][0]["unit_price_cents"] += 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (renamed, ["the customer's name or address is not the order's"]),
        (
            retitled,
            [
                "the HTML part does not name every line of the order",
                "the text part does not name every line of the order",
            ],
        ),
        (dearer, ["the attached table does not add up to the order's total"]),
    ],
)
def test_a_receipt_that_is_not_as_it_has_to_be_is_found_with_its_task(stack: Any, spoil: Any, said: list[str]) -> None:
    spoilt = make_order(1, seed=1)
    spoil(spoilt)
    for number in range(3):
        deliver(stack, number, spoilt if number == 1 else None)
    found = list(scenario.check(stack, Drive(count=3, seed=1)))
    assert [(one.code, one.verdict, one.text, one.tasks) for one in found] == [
        ("mail-flawed", Verdict.FAIL, text, ("t-1",)) for text in said
    ]


def test_what_has_no_parts_at_all_is_found(stack: Any) -> None:
    deliver(stack, 0)
    (mail,) = stack.mailbox.messages()
    order = make_order(0, seed=1)
    to = Address(order["customer"]["name"], addr_spec=order["customer"]["email"])
    message = EmailMessage(policy=email.policy.SMTP)
    message["To"] = to
    mail.path.write_bytes(message.as_bytes())
    assert {finding.text for finding in scenario.check(stack, Drive(count=1, seed=1))} == {
        "the text part does not name every line of the order",
        "there is no HTML part",
        "there are 0 tables attached, not 1",
    }


@pytest.mark.parametrize(("spoilt", "is_read"), [(6, True), (7, False)])
def test_of_many_receipts_a_sample_is_read_and_the_check_says_so(
    stack: Any, monkeypatch: pytest.MonkeyPatch, *, spoilt: int, is_read: bool
) -> None:
    monkeypatch.setattr(emails, "_MOST_READ", 4)
    # Of the steps 0 to 9 and 11, every third is read: 0, 3, 6, 9.
    steps = Steps([range(10), range(11, 12)])
    wrong = make_order(spoilt, seed=1)
    dearer(wrong)
    for number in steps:
        deliver(stack, number, wrong if number == spoilt else None)
    *flaws, sampled = scenario.check(stack, Drive(count=11, seed=1, steps=steps))
    assert [flaw.tasks for flaw in flaws] == ([(f"t-{spoilt}",)] if is_read else [])
    assert (sampled.code, sampled.verdict, sampled.count) == ("mails-sampled", Verdict.PASS, 4)
    assert sampled.text == "4 mails were read, those of one order in 3; 11 were ordered"


def test_up_to_the_limit_every_receipt_is_read(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emails, "_MOST_READ", 4)
    for number in range(4):
        deliver(stack, number)
    assert list(scenario.check(stack, Drive(count=4, seed=1))) == []


def test_what_is_read_is_what_pythons_own_policy_reads(stack: Any) -> None:
    for number in range(30):
        deliver(stack, number)
    for mail in stack.mailbox.messages():
        read, own = emails._parsed(mail.path), mail.parsed  # noqa: SLF001 - what is remembered of one must not show in another.
        assert read.items() == own.items()
        assert read["To"].addresses == own["To"].addresses
        assert [part.get_content() for part in read.iter_attachments()] == [
            part.get_content() for part in own.iter_attachments()
        ]
