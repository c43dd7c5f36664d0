"""The mailbox: a real SMTP server that keeps every mail as it arrived, and refuses on command.

Run in a container as ``python -m harness.inside.smtp_server``. Below the run folder it writes

    effects/mail/000001.eml       the message, byte for byte as the client meant it (dots unstuffed)
    effects/mailbox.jsonl         one line a kept mail: {"t", "kind": "mail", "key", "also", "task",
                                  "recipients", "subject", "file", "sha256", "bytes"}
    control/mailbox-used.jsonl    one line for each time a rule was applied: {"t", "rule", "recipient",
                                  "reply", "delay_s"}; the proof that a fault of the mailbox landed

and it obeys ``control/mailbox.json``, which the host replaces whenever it likes:

    {"rules": [{"id": 1, "recipient": "*@example.com", "reply": "451 4.3.0 try again later",
                "delay_s": 0.0, "times": 2}]}

The message is on disk first, then its line, and only then the client hears 250. A death in between leaves a
message without a line, which nobody was promised; a mail with a line but without a 250 has arrived all the
same. Neither is synced to the disk itself: what was written outlives the container, not a power cut.
"""

import asyncio
import contextlib
import errno
import fnmatch
import hashlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from harness.records.event import Kind
from harness.records.expectation import mail
from harness.records.journal import Writer
from harness.records.values import Json

IDLE_LIMIT_S = 3600
"""A silent client is dropped after this time. It is long because a rule's delay counts as silence."""

LINE_LIMIT_S = 30
"""A client that has begun a line, of a command or of a mail, and does not end it for so long is dropped."""

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted: a whole load test may connect at once."""

_log = logging.getLogger("harness.mailbox")


def _append(path: Path, value: dict[str, Json]) -> None:
    """Append one JSON line, whole or not at all. Raises OSError."""
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            # A predecessor died in the middle of a line. It must not spoil this one.
            line = b"\n" + line
        written = -1
        try:
            written = os.write(file, line)
        finally:
            if written != len(line):
                os.ftruncate(file, size)
        if written != len(line):
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written", os.fspath(path))
    finally:
        os.close(file)


def _text(address: str) -> str:
    # The server hands on bytes that are no UTF-8 as lone surrogates, which no later reader could encode.
    return address.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _header(headers: Message, name: str) -> str:
    """The value of a header, or nothing. A long word arrives as encoded words: Python's own e-mail folds so."""
    # What is no ASCII is UTF-8 (RFC 6532); to the library it would be of an unknown charset.
    found = (str(value) for key, value in headers.raw_items() if key.lower() == name.lower())
    value = _text(next(found, "")).strip()
    if "=?" in value:
        # What is no encoded word after all, or in an unknown charset, is taken as it stands.
        with contextlib.suppress(HeaderParseError, LookupError, ValueError):
            value = str(make_header(decode_header(value)))
    return value


def _names(recipients: Sequence[str], subject: str) -> list[str]:
    """All keys by which a mail can be expected beside its Message-ID."""
    keys = [mail(subject=subject)]
    for recipient in recipients:
        keys += [mail(to=recipient), mail(to=recipient, subject=subject)]
    return list(dict.fromkeys(keys))


class Store:
    """The kept mails of one run folder. Only one process at a time may keep mails there."""

    def __init__(self, run: Path) -> None:
        """Numbers go on after the highest that is there. Raises OSError if the folders cannot be made."""
        self._run = run
        self._mails = run / "effects" / "mail"
        self._mails.mkdir(parents=True, exist_ok=True)
        # A mailbox that got no mail has something to say too; one that was never there has not.
        (run / "effects" / "mailbox.jsonl").touch()
        numbers = (int(path.stem) for path in self._mails.glob("*.eml") if path.stem.isdigit())
        self._number = max(numbers, default=0) + 1

    def keep(self, raw: bytes, recipients: list[str]) -> str:
        """Keep one message and its line, or nothing of it.

        It never awaits, so that a client that hangs up cannot interrupt it half-way.

        Returns:
            The message's file, relative to the run folder.

        Raises:
            OSError: the disk refused.
        """
        digest = hashlib.sha256(raw).hexdigest()
        headers = BytesHeaderParser(policy=compat32).parsebytes(raw.partition(b"\r\n\r\n")[0])
        message_id = _header(headers, "Message-ID").removeprefix("<").removesuffix(">")
        task = _header(headers, "X-Task-ID")
        subject = _header(headers, "Subject")
        to = [_text(recipient) for recipient in recipients]
        file = self._mails / f"{self._number:06d}.eml"
        relative = file.relative_to(self._run).as_posix()
        draft = self._mails / ".draft"
        try:
            draft.write_bytes(raw)
            draft.replace(file)
            _append(
                self._run / "effects" / "mailbox.jsonl",
                {
                    "t": time.time(),
                    "kind": "mail",
                    "key": f"mail:{message_id or f'sha256:{digest}'}",
                    "also": _names(to, subject),
                    "task": task or None,
                    "recipients": to,
                    "subject": subject,
                    "file": relative,
                    "sha256": digest,
                    "bytes": len(raw),
                },
            )
        except OSError:
            for leftover in (draft, file):
                # What cannot even be deleted has no line, and so does not count as a mail.
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise
        self._number += 1
        return relative


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What to answer to some recipients."""

    id: int
    recipient: str
    """A pattern as of fnmatch; upper and lower case are the same."""
    reply: str | None
    """A 4xx or 5xx answer of one line; None accepts."""
    delay_s: float
    """How long to wait before the answer."""
    times: int | None
    """How often the rule applies; None for ever."""

    @classmethod
    def from_json(cls, value: Json) -> "Rule":
        """The rule that a dict describes. Raises ValueError, TypeError or KeyError on anything else."""
        rule = cls(
            id=int(value["id"]),
            recipient=str(value["recipient"]).lower(),
            reply=None if value["reply"] is None else str(value["reply"]),
            delay_s=float(value["delay_s"]),
            times=None if value["times"] is None else int(value["times"]),
        )
        if rule.reply is not None and not re.fullmatch(r"[45]\d\d [^\r\n]+", rule.reply):
            raise ValueError(f"the reply of rule {rule.id} is no 4xx or 5xx line: {rule.reply!r}")
        if not 0 <= rule.delay_s < IDLE_LIMIT_S:
            raise ValueError(f"the delay_s of rule {rule.id} is not within 0 and {IDLE_LIMIT_S} s: {rule.delay_s}")
        return rule


class RulesError(Exception):
    """The rules file is there and cannot be read or understood; the message says why."""


class Rules:
    """The rules as the host last wrote them, and how often each was applied."""

    def __init__(self, control: Path) -> None:
        """Counts on from ``control/mailbox-used.jsonl``, so that a restart does not renew any rule."""
        self._path = control / "mailbox.json"
        self._used_path = control / "mailbox-used.jsonl"
        self._stamp: tuple[int, int, int] | None = None
        self._rules: list[Rule] = []
        self._broken: str | None = None
        self._used: Counter[int] = Counter()
        if self._used_path.exists():
            for line in self._used_path.read_bytes().splitlines():
                # A line that was torn by a death in mid-write is a use whose client never got the answer.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._used[int(json.loads(line)["rule"])] += 1

    def apply(self, recipient: str) -> Rule | None:
        """The first rule that matches `recipient` and has uses left; it has one use less from now on.

        Raises:
            RulesError: the rules file cannot be read or understood.
        """
        self._refresh()
        if self._broken is not None:
            raise RulesError(self._broken)
        name = recipient.lower()
        for rule in self._rules:
            spent = rule.times is not None and self._used[rule.id] >= rule.times
            if not spent and fnmatch.fnmatchcase(name, rule.recipient):
                self._use(rule, recipient)
                return rule
        return None

    def _use(self, rule: Rule, recipient: str) -> None:
        self._used[rule.id] += 1
        use = {"rule": rule.id, "recipient": _text(recipient), "reply": rule.reply, "delay_s": rule.delay_s}
        try:
            _append(self._used_path, {"t": time.time(), **use})
        except OSError:
            # The rule is obeyed all the same: the fault must land even where its proof cannot be written.
            _log.exception("the use of rule %d could not be written", rule.id)

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._stamp:
                return
            # If the file is replaced between these two looks, the old stamp makes the next call read it again.
            rules = [Rule.from_json(value) for value in json.loads(self._path.read_bytes())["rules"]]
        except FileNotFoundError:
            self._stamp, self._rules, self._broken = None, [], None
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            self._stamp, self._broken = None, f"{self._path}: {type(error).__name__}: {error}"
        else:
            self._stamp, self._rules, self._broken = stamp, rules, None
            _log.info("%d rules read from %s", len(rules), self._path)


class Handler:
    """What the SMTP server asks: may this recipient have mail, and will you keep this message."""

    def __init__(
        self, store: Store, rules: Rules, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """One handler serves every connection; `sleep` waits out a rule's delay, in seconds."""
        self._store = store
        self._rules = rules
        self._sleep = sleep

    async def handle_RCPT(  # noqa: N802 - aiosmtpd finds its hooks by the SMTP verb.
        self,
        server: SMTP,  # noqa: ARG002 - aiosmtpd passes it.
        session: Session,  # noqa: ARG002 - aiosmtpd passes it.
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Accept the recipient, or answer as the rules say."""
        try:
            rule = self._rules.apply(address)
        except RulesError as error:
            _log.error("no recipient is accepted until the rules can be read: %s", error)
            return "451 4.3.0 The mailbox cannot read its rules"
        if rule is not None:
            await self._sleep(rule.delay_s)
            if rule.reply is not None:
                return rule.reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd finds its hooks by the SMTP verb.
        self,
        server: SMTP,  # noqa: ARG002 - aiosmtpd passes it.
        session: Session,  # noqa: ARG002 - aiosmtpd passes it.
        envelope: Envelope,
    ) -> str:
        """Keep the message, or answer 452."""
        try:
            file = self._store.keep(envelope.original_content or b"", envelope.rcpt_tos)
        except OSError:
            _log.exception("a mail could not be kept")
            return "452 4.3.1 The mailbox could not write the mail"
        return f"250 2.0.0 Kept as {file}"

    async def handle_exception(self, error: Exception) -> str:
        """Tell the client to come back: aiosmtpd's own answer, 500, would blame the mail."""
        _log.error("a command failed", exc_info=error)
        return "451 4.3.0 The mailbox failed to handle the command"


class Connection(SMTP):
    """One client, who ends each line that it begins."""

    _line_is_late: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Some bytes more."""
        super().data_received(data)
        if b"\n" in data:
            self._forget()
        if not data.endswith(b"\n") and self._line_is_late is None:
            self._line_is_late = self.loop.call_later(LINE_LIMIT_S, self._drop)

    def connection_lost(self, error: Exception | None) -> None:
        """The end, whoever made it."""
        self._forget()
        super().connection_lost(error)

    def _forget(self) -> None:
        if self._line_is_late is not None:
            self._line_is_late.cancel()
            self._line_is_late = None

    def _drop(self) -> None:
        self._line_is_late = None
        if self.transport is not None:
            self.transport.close()


async def listen(run: Path, *, host: str, port: int) -> asyncio.Server:
    """Start the mailbox of a run folder on the running loop; port 0 takes a free one.

    Raises:
        OSError: the folders cannot be made, or the port is taken.
    """
    handler = Handler(Store(run), Rules(run / "control"))
    loop = asyncio.get_running_loop()

    def connection() -> Connection:
        # Without a hostname every connection would ask the resolver, without a loop it would ask for the
        # current one, which newer Pythons warn about.
        return Connection(handler, hostname="mailbox", enable_SMTPUTF8=True, timeout=IDLE_LIMIT_S, loop=loop)

    return await loop.create_server(connection, host, port, backlog=BACKLOG)


async def serve(run: Path, journal: Writer, *, host: str, port: int) -> None:
    """Be the mailbox of a run folder until SIGTERM or SIGINT, and journal it.

    Raises:
        OSError: the folders cannot be made, or the port is taken.
        JournalError: the journal cannot be written.
    """
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[str] = loop.create_future()

    def stop(name: str) -> None:
        if not stopped.done():
            stopped.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    journal.write(Kind.UP)
    server = await listen(run, host=host, port=port)
    journal.write(Kind.READY, port=server.sockets[0].getsockname()[1])
    name = await stopped
    # Closing ends the listening only. The end of the loop drops the clients, as a real server's end would.
    server.close()
    journal.write(Kind.DOWN, signal=name)


def main() -> None:
    """Serve until SIGTERM or SIGINT, as the environment says.

    HARNESS_RUN (the run folder, /harness/run), HARNESS_JOURNAL (the folder of journals), HARNESS_NODE (the
    node's name), HARNESS_SMTP_PORT (1025) and HARNESS_SMTP_HOST (all interfaces of the container).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Three lines for each connection and command would bury what matters.
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    run = Path(os.environ.get("HARNESS_RUN", "/harness/run"))
    host = os.environ.get("HARNESS_SMTP_HOST", "0.0.0.0")  # noqa: S104 - the container's; the host publishes it on loopback.
    port = int(os.environ.get("HARNESS_SMTP_PORT", "1025"))
    journal = Writer(os.environ["HARNESS_JOURNAL"], node=os.environ["HARNESS_NODE"], role="mailbox")
    asyncio.run(serve(run, journal, host=host, port=port))


if __name__ == "__main__":
    main()
