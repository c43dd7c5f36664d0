"""The mailbox: a real SMTP server that keeps every mail as it arrived, and refuses mails by rules.

Run in a container as ``python -m harness.inside.smtp_server``. Below the run folder it writes

    effects/mail/000001.eml       the message, byte for byte as the client meant it (dots unstuffed)
    effects/mailbox.jsonl         one line per kept mail: {"t", "kind": "mail", "key", "also", "task",
                                  "recipients", "subject", "file", "sha256", "bytes"}
    control/mailbox-used.jsonl    one line for each time a rule was applied: {"t", "rule", "recipient",
                                  "reply", "delay_s"}; the proof that a fault of the mailbox happened

and it reads ``control/mailbox.json``, which the host may replace at any time:

    {"rules": [{"id": 1, "recipient": "*@example.com", "reply": "451 4.3.0 try again later",
                "delay_s": 0.0, "times": 2}]}

The message is written first, then its line, and only then the client gets 250. A death in between leaves a message
without a line, whose client got no 250; a mail with a line but without a 250 has arrived all the same. Neither is
synced to disk: what was written survives the end of the container, not a power cut.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from harness.inside.mail_rules import IDLE_LIMIT_S, Rules, RulesError
from harness.inside.mail_store import Store
from harness.records.event import Kind
from harness.records.journal import Writer

LINE_LIMIT_S = 30
"""Seconds after which a client is dropped that has begun a line (of a command or of a mail) and has not ended it."""

BACKLOG = 1024
"""The number of connections that the kernel queues until they are accepted: a load test may connect all at once."""

_log = logging.getLogger("harness.mailbox")


class Handler:
    """The SMTP server's hooks: accepts or refuses a recipient, and keeps a message."""

    def __init__(
        self, store: Store, rules: Rules, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """Create the one handler of all connections; `sleep` waits for a rule's delay, in seconds."""
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
        """Return a temporary error, so that the client tries again: aiosmtpd's own answer, 500, blames the mail."""
        _log.error("a command failed", exc_info=error)
        return "451 4.3.0 The mailbox failed to handle the command"


class Connection(SMTP):
    """The connection of one client. It is closed if the client does not end a line in time."""

    _line_is_late: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take more bytes."""
        super().data_received(data)
        if b"\n" in data:
            self._forget()
        if not data.endswith(b"\n") and self._line_is_late is None:
            self._line_is_late = self.loop.call_later(LINE_LIMIT_S, self._drop)

    def connection_lost(self, error: Exception | None) -> None:
        """Note the end of the connection, by either side."""
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
        # Without a hostname every connection would ask the resolver. Without a loop it would ask for the
        # current one, which newer Pythons warn about.
        return Connection(handler, hostname="mailbox", enable_SMTPUTF8=True, timeout=IDLE_LIMIT_S, loop=loop)

    return await loop.create_server(connection, host, port, backlog=BACKLOG)


async def serve(run: Path, journal: Writer, *, host: str, port: int) -> None:
    """Run the mailbox of a run folder until SIGTERM or SIGINT, and journal it.

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
    # Closing only stops the listening. The end of the loop drops the clients, as the end of a real server does.
    server.close()
    journal.write(Kind.DOWN, signal=name)


def main() -> None:
    """Serve until SIGTERM or SIGINT, as configured by the environment.

    The variables: HARNESS_RUN (the run folder, /harness/run), HARNESS_JOURNAL (the folder of journals), HARNESS_NODE
    (the node's name), HARNESS_SMTP_PORT (1025) and HARNESS_SMTP_HOST (all interfaces of the container).
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Three lines for each connection and command would hide the others.
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    run = Path(os.environ.get("HARNESS_RUN", "/harness/run"))
    host = os.environ.get("HARNESS_SMTP_HOST", "0.0.0.0")  # noqa: S104 - the container's; the host publishes it on loopback.
    port = int(os.environ.get("HARNESS_SMTP_PORT", "1025"))
    journal = Writer(os.environ["HARNESS_JOURNAL"], node=os.environ["HARNESS_NODE"], role="mailbox")
    asyncio.run(serve(run, journal, host=host, port=port))


if __name__ == "__main__":
    main()
