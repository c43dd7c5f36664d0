"""The mails that the mailbox keeps: a file for each, and a JSON line that describes it."""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import compat32
from pathlib import Path

from harness.records.expectation import mail
from harness.records.values import Json


def append_line(path: Path, value: dict[str, Json]) -> None:
    """Append one JSON line, whole or not at all. Raises OSError."""
    line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            # A process died in the middle of the last line. It must not spoil this one.
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


def readable(address: str) -> str:
    """Return an address as text that can be encoded."""
    # The server passes bytes that are not UTF-8 as lone surrogates, which cannot be encoded.
    return address.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _header(headers: Message, name: str) -> str:
    """Return the value of a header, or an empty string. Encoded words are decoded: Python folds long words so."""
    # Non-ASCII bytes are UTF-8 (RFC 6532); the library would give them an unknown charset.
    found = (str(value) for key, value in headers.raw_items() if key.lower() == name.lower())
    value = readable(next(found, "")).strip()
    if "=?" in value:
        # What is not an encoded word after all, or has an unknown charset, is taken unchanged.
        with contextlib.suppress(HeaderParseError, LookupError, ValueError):
            value = str(make_header(decode_header(value)))
    return value


def _names(recipients: Sequence[str], subject: str) -> list[str]:
    """Return all keys by which a mail can be expected, beside its Message-ID."""
    keys = [mail(subject=subject)]
    for recipient in recipients:
        keys += [mail(to=recipient), mail(to=recipient, subject=subject)]
    return list(dict.fromkeys(keys))


class Store:
    """The kept mails of one run folder. Only one process at a time may keep mails there."""

    def __init__(self, run: Path) -> None:
        """Make the folders, and continue the numbers after the highest one present. Raises OSError."""
        self._run = run
        self._mails = run / "effects" / "mail"
        self._mails.mkdir(parents=True, exist_ok=True)
        # An empty file tells a mailbox that got no mail from one that never existed.
        (run / "effects" / "mailbox.jsonl").touch()
        numbers = (int(path.stem) for path in self._mails.glob("*.eml") if path.stem.isdigit())
        self._number = max(numbers, default=0) + 1

    def keep(self, raw: bytes, recipients: list[str]) -> str:
        """Keep one message and its line, or neither.

        It never awaits, so that a client that hangs up cannot interrupt it half-way.

        Returns:
            The message's file, relative to the run folder.

        Raises:
            OSError: the file or the line could not be written.
        """
        digest = hashlib.sha256(raw).hexdigest()
        headers = BytesHeaderParser(policy=compat32).parsebytes(raw.partition(b"\r\n\r\n")[0])
        message_id = _header(headers, "Message-ID").removeprefix("<").removesuffix(">")
        task = _header(headers, "X-Task-ID")
        subject = _header(headers, "Subject")
        to = [readable(recipient) for recipient in recipients]
        file = self._mails / f"{self._number:06d}.eml"
        relative = file.relative_to(self._run).as_posix()
        draft = self._mails / ".draft"
        try:
            draft.write_bytes(raw)
            draft.replace(file)
            append_line(
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
                # A file that cannot be deleted has no line, and so does not count as a mail.
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise
        self._number += 1
        return relative
