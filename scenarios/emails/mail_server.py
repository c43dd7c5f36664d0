"""The conversation with the mail server: one mail is accepted, refused or deferred."""

import os
import smtplib
import socket
import time
from contextlib import suppress
from email.message import EmailMessage
from typing import Any

from scenarios.emails.limits import HARD_LIMIT_S


class MailRefused(Exception):  # noqa: N818 - it names what the server did.
    """The mail server refused the mail permanently (5xx); args are the code and the server's text."""


class MailDeferred(Exception):  # noqa: N818 - it names what the server did.
    """The mail was not accepted this time: a 4xx, or no connection. Args are the code (0: none) and a text."""


class _Conversation(smtplib.SMTP):
    """An SMTP connection with one deadline for the whole conversation.

    With a time-out for each step, a slow server could hold a mail for longer than its lease, in pools that enforce
    no time limits. A run that was frozen past its lease also finds the deadline over before it sends.
    """

    def __init__(self, host: str, port: int, *, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        # The name is given because smtplib would ask the resolver for it, which may hang where there is none.
        super().__init__(host, port, local_hostname=socket.gethostname(), timeout=limit_s)

    def send(self, s: Any) -> None:
        self._hurry()
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        self._hurry()
        return super().getreply()

    def _hurry(self) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the mail server took too long")
        if self.sock is not None:
            self.sock.settimeout(left_s)


def send(message: EmailMessage, *, limit_s: float = HARD_LIMIT_S) -> None:
    """Hand one mail with one recipient to the server at SMTP_HOST:SMTP_PORT (localhost:25).

    Args:
        message: the mail; sender and recipient are taken from its headers.
        limit_s: seconds for the whole conversation.

    Raises:
        MailRefused: a 5xx to the mail or one of its addresses.
        MailDeferred: a 4xx, or the connection could not be made, broke, or took longer than `limit_s`.
    """
    host, port = os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25"))
    try:
        conversation = _Conversation(host, port, limit_s=limit_s)
        try:
            conversation.send_message(message)
            # The mail is accepted. An error in QUIT must not make this look like a failure, so its answer is not
            # even waited for.
            with suppress(OSError):
                conversation.putcmd("quit")
        finally:
            conversation.close()
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise _refusal(code, text) from error
    except smtplib.SMTPConnectError as error:
        # The server wants no connection now, with any code. That says nothing about the mail.
        raise MailDeferred(error.smtp_code, _readable(error.smtp_error)) from error
    except smtplib.SMTPResponseException as error:
        raise _refusal(error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused(553, f"the server cannot take this address: {error}") from error
    except OSError as error:  # SMTPServerDisconnected is one, too.
        raise MailDeferred(0, f"{type(error).__name__}: {error}") from error


def _readable(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _refusal(code: int, text: bytes | str) -> MailRefused | MailDeferred:
    permanent = 500 <= code <= 599  # noqa: PLR2004 - the classes of SMTP replies.
    return (MailRefused if permanent else MailDeferred)(code, _readable(text))
