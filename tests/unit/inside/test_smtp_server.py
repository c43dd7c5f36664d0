"""The mailbox, a real server on loopback in a thread of the test."""

import asyncio
import hashlib
import json
import os
import resource
import signal
import smtplib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from harness.inside import smtp_server
from harness.inside.mail_rules import Rules
from harness.inside.mail_store import Store
from harness.inside.smtp_server import Handler, serve
from harness.records import journal
from harness.records.event import Kind
from harness.records.expectation import mail
from harness.records.values import Json
from tests.fakes.mail_server import serving

MAIL = (
    b"From: a@example.com\r\nMessage-ID: <1@shop.example>\r\nX-Task-ID: t-1\r\n\r\n"
    b"..starts with a dot\r\nna\xc3\xafve\r\n"
)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with serving(tmp_path) as port:
        yield port


@pytest.mark.parametrize("said", [b"MAIL FR", b"EHLO x\r\nMAIL FR"])
def test_a_line_that_is_not_sent_to_its_end_closes_the_connection(
    port: int, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(smtp_server, "LINE_LIMIT_S", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(said)
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert answers.startswith(b"220 ")


def test_a_client_that_has_ended_its_lines_may_be_silent(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a rule's delay and an application that thinks are silence, too."""
    monkeypatch.setattr(smtp_server, "LINE_LIMIT_S", 0.05)
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client.ehlo()
        assert client.sock is not None
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sock.recv(1)
        client.sock.settimeout(5)
        assert client.noop()[0] == 250


def post(port: int, raw: bytes = MAIL, recipients: tuple[str, ...] = ("zoe@example.com",)) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="test", timeout=5) as client:
        client.sendmail("shop@example.com", recipients, raw)


def index(run: Path) -> list[dict[str, Any]]:
    path = run / "effects" / "mailbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def used(run: Path) -> list[int]:
    lines = (run / "control" / "mailbox-used.jsonl").read_text().splitlines()
    return [json.loads(line)["rule"] for line in lines]


def rule(number: int, **given: Json) -> dict[str, Json]:
    return {"id": number, "recipient": "*", "reply": "451 4.3.0 later", "delay_s": 0, "times": None} | given


def write_rules(run: Path, *rules: Json) -> None:
    control = run / "control"
    control.mkdir(exist_ok=True)
    (control / "new").write_text(json.dumps({"rules": rules}))
    (control / "new").replace(control / "mailbox.json")


def answer(rules: Rules, recipient: str) -> str | None:
    applied = rules.apply(recipient)
    return None if applied is None else applied.reply


def test_a_mail_is_kept_byte_for_byte_and_indexed(tmp_path: Path, port: int) -> None:
    post(port, recipients=("zoe@example.com", "li@example.com"))
    raw = (tmp_path / "effects/mail/000001.eml").read_bytes()
    assert raw == MAIL
    (line,) = index(tmp_path)
    t = line.pop("t")
    assert t == pytest.approx((tmp_path / "effects/mailbox.jsonl").stat().st_mtime, abs=5)
    assert line == {
        "kind": "mail",
        "key": "mail:1@shop.example",
        "also": [
            "mail:subject=",
            "mail:to=zoe@example.com",
            "mail:to=zoe@example.com;subject=",
            "mail:to=li@example.com",
            "mail:to=li@example.com;subject=",
        ],
        "task": "t-1",
        "recipients": ["zoe@example.com", "li@example.com"],
        "subject": "",
        "file": "effects/mail/000001.eml",
        "sha256": hashlib.sha256(MAIL).hexdigest(),
        "bytes": len(MAIL),
    }


def test_a_mail_without_message_id_is_known_by_its_content(tmp_path: Path, port: int) -> None:
    raw = b"Subject: x\r\n\r\nbody\r\n"
    post(port, raw)
    (line,) = index(tmp_path)
    assert line["key"] == f"mail:sha256:{hashlib.sha256(raw).hexdigest()}"
    assert line["task"] is None


def test_folded_and_encoded_headers_are_read_as_they_were_meant(tmp_path: Path) -> None:
    raw = b"Message-ID:\r\n =?utf-8?q?=3Clong?=\r\n =?utf-8?q?=40x=3E?=\r\nX-Task-ID: =?nix?q?a?=\r\n\r\n"
    Store(tmp_path).keep(raw, ["a@b"])
    (line,) = index(tmp_path)
    assert (line["key"], line["task"]) == ("mail:long@x", "=?nix?q?a?=")


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        (b"Subject: =?utf-8?q?Sch=C3=B6n,_Zo=C3=AB?=\r\n =?utf-8?q?!?=\r\n", "Schön, Zoë!"),
        (b"Subject: a long\r\n  one\r\n", "a long one"),
        ("Subject: schön\r\n".encode(), "schön"),
        (b"", ""),
    ],
)
def test_a_mail_is_known_by_recipient_and_subject_as_they_were_meant(
    tmp_path: Path, header: bytes, subject: str
) -> None:
    Store(tmp_path).keep(header + b"To: Zoe\r\n\r\nbody\r\n", ["Zoe@Example.com", "zoe@example.com"])
    (line,) = index(tmp_path)
    assert mail(to="ZOE@example.com", subject=subject) in line["also"]
    assert line["also"].count(mail(to="zoe@example.com")) == 1


def test_addresses_and_bodies_may_be_utf8(tmp_path: Path, port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, local_hostname="test", timeout=5) as client:
        client.ehlo()
        assert client.has_extn("smtputf8")
        assert client.has_extn("8bitmime")
        client.sendmail("shop@example.com", "李@example.com", MAIL, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    assert index(tmp_path)[0]["recipients"] == ["李@example.com"]


def test_a_recipient_that_is_no_text_does_not_spoil_the_index(tmp_path: Path) -> None:
    Store(tmp_path).keep(MAIL, [b"\xff@example.com".decode("utf-8", "surrogateescape")])
    assert index(tmp_path)[0]["recipients"] == ["\ufffd@example.com"]


def test_numbering_goes_on_after_a_restart_also_after_a_torn_line(tmp_path: Path) -> None:
    with serving(tmp_path) as port:
        post(port)
    with (tmp_path / "effects/mailbox.jsonl").open("a") as file:
        file.write('{"kind":"ma')
    with serving(tmp_path) as port:
        post(port)
    lines = (tmp_path / "effects/mailbox.jsonl").read_text().splitlines()
    assert [json.loads(lines[i])["file"] for i in (0, 2)] == ["effects/mail/000001.eml", "effects/mail/000002.eml"]
    assert lines[1] == '{"kind":"ma'


def test_a_disk_that_refuses_is_a_452_and_leaves_nothing(tmp_path: Path, port: int) -> None:
    blocked = tmp_path / "effects/mailbox.jsonl"
    blocked.unlink()
    blocked.mkdir()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        post(port)
    assert refused.value.smtp_code == 452
    assert list((tmp_path / "effects/mail").iterdir()) == []
    blocked.rmdir()
    post(port)
    assert [line["file"] for line in index(tmp_path)] == ["effects/mail/000001.eml"]


def test_a_line_that_fits_in_part_is_taken_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = tmp_path / "effects/mailbox.jsonl"
    before = b'{"filler": "' + b"x" * 4000 + b'"}\n'
    path.write_bytes(before)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="only 10 of"):
            store.keep(MAIL, ["zoe@example.com"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list((tmp_path / "effects/mail").iterdir()) == []


def test_many_clients_at_once_lose_nothing(tmp_path: Path, port: int) -> None:
    clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(60)]
    for number, client in enumerate(clients):
        client.sendall(
            b"HELO test\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<z@example.com>\r\nDATA\r\n"
            b"Message-ID: <%d@x>\r\n\r\nhello\r\n.\r\nQUIT\r\n" % number
        )
    for client in clients:
        with client, client.makefile("rb") as answers:
            assert answers.read().count(b"\r\n250 ") == 4
    assert sorted(line["key"] for line in index(tmp_path)) == sorted(f"mail:{n}@x" for n in range(60))
    assert len(list((tmp_path / "effects/mail").glob("*.eml"))) == 60


def test_a_rule_refuses_its_recipient_and_no_other(tmp_path: Path, port: int) -> None:
    write_rules(tmp_path, rule(1, recipient="Zoe@*", reply="550 5.1.1 no such user"))
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        post(port, recipients=("zoe@EXAMPLE.com",))
    assert refused.value.recipients == {"zoe@EXAMPLE.com": (550, b"5.1.1 no such user")}
    post(port, recipients=("li@example.com",))
    assert [line["recipients"] for line in index(tmp_path)] == [["li@example.com"]]
    assert used(tmp_path) == [1]


def test_a_mail_to_several_goes_to_those_who_were_accepted(tmp_path: Path, port: int) -> None:
    write_rules(tmp_path, rule(1, recipient="zoe@*"))
    post(port, recipients=("zoe@example.com", "li@example.com"))
    assert index(tmp_path)[0]["recipients"] == ["li@example.com"]


def test_the_first_rule_with_uses_left_wins(tmp_path: Path) -> None:
    write_rules(tmp_path, rule(1, times=2), rule(2, reply="550 no", times=1))
    rules = Rules(tmp_path / "control")
    answers = [answer(rules, "zoe@example.com") for _ in range(4)]
    assert answers == ["451 4.3.0 later", "451 4.3.0 later", "550 no", None]


def test_a_new_rules_file_holds_from_the_next_recipient_on_and_keeps_the_counts(tmp_path: Path) -> None:
    rules = Rules(tmp_path / "control")
    assert answer(rules, "z@example.com") is None
    write_rules(tmp_path, rule(1, times=1))
    assert answer(rules, "z@example.com") == "451 4.3.0 later"
    write_rules(tmp_path, rule(1, times=1), rule(2, reply="550 no"))
    assert answer(rules, "z@example.com") == "550 no"
    (tmp_path / "control/mailbox.json").unlink()
    assert answer(rules, "z@example.com") is None


def test_a_restart_does_not_renew_a_rule(tmp_path: Path) -> None:
    write_rules(tmp_path, rule(1, times=1))
    assert answer(Rules(tmp_path / "control"), "z@example.com") == "451 4.3.0 later"
    assert answer(Rules(tmp_path / "control"), "z@example.com") is None


def test_a_slow_rule_delays_its_recipient_and_nobody_else(tmp_path: Path) -> None:
    write_rules(tmp_path, rule(1, recipient="slow@*", reply=None, delay_s=30))

    async def play() -> list[str]:
        order: list[str] = []
        gate = asyncio.Event()

        async def sleep(delay_s: float) -> None:
            order.append(f"waits {delay_s:g}")
            await gate.wait()

        handler = Handler(Store(tmp_path), Rules(tmp_path / "control"), sleep=sleep)
        loop = asyncio.get_running_loop()
        server, session = SMTP(handler, hostname="test", loop=loop), Session(loop)

        async def ask(recipient: str) -> None:
            envelope = Envelope()
            reply = await handler.handle_RCPT(server, session, envelope, recipient, [])
            order.append(f"{reply[:3]} {envelope.rcpt_tos}")

        slow = asyncio.create_task(ask("slow@example.com"))
        await asyncio.sleep(0)
        await ask("quick@example.com")
        gate.set()
        await slow
        return order

    assert asyncio.run(play()) == ["waits 30", "250 ['quick@example.com']", "250 ['slow@example.com']"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"rules": [7]}',
        '{"rules": [{"id": 1}]}',
        json.dumps({"rules": [rule(1, reply="250 fine")]}),
        json.dumps({"rules": [rule(1, reply="451 two\r\nlines")]}),
        json.dumps({"rules": [rule(1, delay_s=-1)]}),
        '{"rules": [{"id": 1, "recipient": "*", "reply": null, "delay_s": NaN, "times": null}]}',
        '{"rules": [{"id": Infinity, "recipient": "*", "reply": null, "delay_s": 0, "times": null}]}',
    ],
)
def test_rules_that_cannot_be_understood_hold_up_everybody_until_they_are_mended(
    tmp_path: Path, port: int, text: str
) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/mailbox.json").write_text(text)
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        post(port)
    assert refused.value.recipients["zoe@example.com"][0] == 451
    write_rules(tmp_path)
    post(port)
    assert len(index(tmp_path)) == 1


def test_sigterm_ends_it_and_its_life_is_journaled(tmp_path: Path) -> None:
    class Journal(journal.Writer):
        def write(self, kind: Kind, task: str | None = None, **data: Json) -> None:
            super().write(kind, task, **data)
            if kind is Kind.READY:
                # A client in mid-conversation must not keep the server alive.
                self.client = socket.create_connection(("127.0.0.1", data["port"]), timeout=5)
                os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "journal"
    folder.mkdir()
    writer = Journal(folder, node="mailbox", role="mailbox")
    asyncio.run(serve(tmp_path, writer, host="127.0.0.1", port=0))
    writer.close()
    writer.client.close()
    events = list(journal.read(folder))
    assert [event.kind for event in events] == [Kind.OPENED, Kind.UP, Kind.READY, Kind.DOWN]
    assert events[0].data["role"] == "mailbox"
    assert events[3].data["signal"] == "SIGTERM"
