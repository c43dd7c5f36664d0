"""Faults of the mail server, a real one in a thread of the test."""

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from time import time as wall_time
from typing import cast

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.engine import Engine
from harness.containers.mailbox import SMTP_PORT, Mailbox
from harness.errors import EngineError, UsageError
from harness.faults import RejectMail, SlowMail
from harness.faults.fault_text import fault_of
from harness.records.event import Kind
from tests.fakes.container import FakeEngine
from tests.fakes.mail_server import serving
from tests.unit.faults.test_faults import FakeStack, Time, box

MAIL = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def time() -> Time:
    return Time(wall_time())


def engine_with(port: int) -> Engine:
    return cast("Engine", FakeEngine(ports={SMTP_PORT: port}))


@pytest.fixture
def stack(tmp_path: Path, time: Time) -> Iterator[FakeStack]:
    folder = RunFolder.create(tmp_path, "mail")
    with serving(folder.path) as port:
        engine = engine_with(port)
        mailbox = Mailbox(engine, image="image", run_folder=folder.path, network=engine.create_network("session"))
        mailbox.start()
        yield FakeStack(folder=folder, time=time, others=[mailbox])


@pytest.fixture
def mailbox(stack: FakeStack) -> Mailbox:
    return cast("Mailbox", stack.others[0])


def send(mailbox: Mailbox, recipient: str) -> int:
    """Send a mail, and return the code of the answer to its recipient."""
    host, port = mailbox.container.host_port(SMTP_PORT)
    with smtplib.SMTP(host, port, timeout=5) as client:
        client.ehlo()
        client.mail("shop@example.com")
        code, _ = client.rcpt(recipient)
        if code == 250:
            client.data(MAIL)
    return code


@pytest.mark.parametrize("text", ["slow-mail,delay_s=0.1", "reject-mail,code=550"])
def test_a_fault_of_the_mail_server_keeps_the_contract(text: str, stack: FakeStack, mailbox: Mailbox) -> None:
    mailbox.answer("vip@*", "451 4.3.0 later")
    fault = fault_of(text).on(stack)
    fault.heal()
    assert (fault.injected_t, fault.healed_t, fault.landed()) == (None, None, "it was not injected.")
    fault.inject()
    assert fault.begun_t is not None
    assert fault.injected_t is not None
    assert fault.begun_t <= fault.injected_t
    assert str(fault.landed()) == "mailbox was not healed."
    fault.heal()
    healed_t = fault.healed_t
    fault.heal()
    assert (fault.landed(), fault.healed_t) == (None, healed_t)
    # The rule of before is there again, and the recipients of the proof are nobody's.
    assert (send(mailbox, "vip@example.com"), send(mailbox, "b@example.com")) == (451, 250)
    assert mailbox.answered() == ["vip@example.com"]


def test_a_refused_mail_is_counted_with_the_tasks_that_ran_then(stack: FakeStack, mailbox: Mailbox, time: Time) -> None:
    journal = stack.journal("worker-1")
    journal.write(Kind.STARTED, "before")
    time.t += 0.001
    journal.write(Kind.FINISHED, "before", state="SUCCESS")
    with RejectMail(550).on(stack) as fault:
        fault.inject()
        time.t = wall_time()
        journal.write(Kind.STARTED, "writes a mail")
        assert send(mailbox, "a@example.com") == 550
        time.t = wall_time()
        journal.write(Kind.FINISHED, "writes a mail", state="FAILURE")
        time.t += 0.001
        journal.write(Kind.STARTED, "died later")
        assert [one["recipient"] for one in rules(stack)] == ["*"]
    assert send(mailbox, "a@example.com") == 250
    fault.follow()
    assert (fault.mails, fault.tasks) == (1, ("writes a mail",))
    assert fault.words() == "1 mail was refused with 550; 1 task ran then"
    assert rules(stack) == []


def test_a_slow_mail_arrives_and_is_counted(stack: FakeStack, mailbox: Mailbox) -> None:
    with SlowMail(0.05).on(stack) as fault:
        fault.inject()
        before_t = wall_time()
        assert send(mailbox, "a@example.com") == 250
        assert wall_time() - before_t >= 0.05
    fault.follow()
    assert (fault.mails, len(mailbox.messages())) == (1, 1)
    assert fault.words() == "1 mail was answered after 0.05 s; 0 tasks ran then"


def test_without_a_mail_it_says_that_none_came(stack: FakeStack) -> None:
    with RejectMail().on(stack) as fault:
        fault.inject()
    fault.follow()
    assert fault.landed() is None
    assert fault.words() == "every mail was to be refused with 451; none came (overlapped=0)"


@pytest.mark.usefixtures("mailbox")
def test_a_server_that_forgot_its_rule_is_no_proof(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = RejectMail().on(stack)
    fault.inject()
    (stack.folder.path / "control" / "mailbox.json").write_text('{"rules": []}')
    monkeypatch.setattr(Mailbox.applies, "__defaults__", (0.1,))
    fault.heal()
    assert fault.landed() == "mailbox answered otherwise when it was to be healed."


def test_a_server_that_does_not_answer_is_an_error_and_its_rules_are_as_before(
    stack: FakeStack, mailbox: Mailbox
) -> None:
    box(mailbox).ports = {}
    fault = SlowMail(1).on(stack)
    with pytest.raises(EngineError, match="not published"):
        fault.inject()
    fault.heal()
    assert (fault.landed(), rules(stack)) == ("it was not injected.", [])


def test_without_a_mail_server_or_with_a_code_that_refuses_nothing_it_cannot_be(stack: FakeStack) -> None:
    stack.others = []
    with pytest.raises(UsageError, match="has no mailbox"):
        SlowMail().on(stack).inject()
    with pytest.raises(UsageError, match="250 refuses no mail"):
        RejectMail(250)


def rules(stack: FakeStack) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((stack.folder.path / "control" / "mailbox.json").read_text())["rules"]
    return found
