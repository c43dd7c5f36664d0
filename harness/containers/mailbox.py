"""The mailbox: a real SMTP server that keeps every mail, and answers by rules."""

import json
import re
import secrets
import smtplib
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from functools import cached_property
from pathlib import Path

from harness.containers.app_node import inside_command, inside_env, inside_mounts
from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node
from harness.errors import EngineError, UsageError, WaitTimeout
from harness.records.values import Json
from harness.wait import wait_until

SMTP_PORT = 1025
HOSTNAME = "mailbox"
_PROBE_TIMEOUT_S = 3
_LONGEST_DELAY_S = 3600
_OWN = "@harness.invalid"
"""The domain of the recipients that only the harness names. No app writes to it."""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """An accepted mail, with the recipients of its envelope."""

    key: str
    """The logical key of the effect."""
    task: str | None
    """The id of the task that sent the mail, by the mail's own header."""
    recipients: tuple[str, ...]
    path: Path
    """The message, byte for byte."""

    @cached_property
    def parsed(self) -> EmailMessage:
        """The message with its headers and parts decoded. Raises OSError if the file is gone."""
        with self.path.open("rb") as file:
            return BytesParser(policy=policy.default).parse(file)


@dataclass(frozen=True, kw_only=True)
class Use:
    """One application of a rule."""

    t: float
    """When the recipient was named, Unix time in seconds."""
    recipient: str


@dataclass(frozen=True, kw_only=True)
class _Rule:
    id: int
    recipient: str
    reply: str | None
    delay_s: float
    times: int | None


class Mailbox(Node):
    """An SMTP server, on loopback and on its network."""

    def __init__(
        self,
        engine: Engine,
        *,
        image: str,
        run_folder: Path,
        network: str,
        host: str = HOSTNAME,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the node image.
            run_folder: the run's folder, with `journal` in it. Mails go below its `effects`.
            network: the network of the workers.
            host: its name on the network; stacks that share a network need different ones.
            labels: more labels.
        """
        spec = NodeSpec(
            name=HOSTNAME,
            image=image,
            command=inside_command("smtp_server"),
            env=inside_env(HOSTNAME),
            mounts=inside_mounts(run_folder),
            ports=(SMTP_PORT,),
            aliases=(host,),
            labels=dict(labels or {}),
            read_only=True,
        )
        super().__init__(engine, spec, network=network, missing=self._lacks)
        self.host = host
        """The host name on the network."""
        self._run_folder = run_folder
        self._rules: list[_Rule] = []
        self._last_id = 0
        self._rules_lock = threading.Lock()

    def answer(
        self,
        recipient: str,
        reply: str | None = None,
        *,
        delay_s: float = 0.0,
        times: int | None = None,
        first: bool = False,
    ) -> int:
        """Set the answer to mail for some recipients from now on. The first rule that matches a recipient applies.

        Args:
            recipient: an address or a pattern of them, such as ``*@example.com``.
            reply: a line of 4xx or 5xx, such as ``451 4.3.0 try again later``; None accepts the mail.
            delay_s: seconds to wait before the answer, below 3600.
            times: how many recipients get this answer; None for no limit.
            first: True to put this rule before those that are there.

        Returns:
            The rule's number, which no other rule of this mailbox has.

        Raises:
            UsageError: the reply is no refusal, or a number is out of range.
        """
        if reply is not None and not re.fullmatch(r"[45]\d\d [^\r\n]+", reply):
            raise UsageError(f"{reply!r} is no refusal: it must be one line of a 4xx or 5xx code, a space and a text.")
        if not 0 <= delay_s < _LONGEST_DELAY_S or (times is not None and times < 1):
            raise UsageError(f"A rule with delay_s={delay_s} and times={times} makes no sense.")
        with self._rules_lock:
            # A number is never used again: the server counts by it how often a rule was applied.
            self._last_id += 1
            rule = _Rule(id=self._last_id, recipient=recipient, reply=reply, delay_s=delay_s, times=times)
            self._rules.insert(0 if first else len(self._rules), rule)
            self._write_rules()
        return rule.id

    def withdraw(self, rule: int) -> None:
        """Remove the rule with this number, if it is still there."""
        with self._rules_lock:
            self._rules = [one for one in self._rules if one.id != rule]
            self._write_rules()

    def clear(self) -> None:
        """Remove all rules: accept every mail at once."""
        with self._rules_lock:
            self._rules.clear()
            self._write_rules()

    def messages(self) -> list[Mail]:
        """Return every mail that was accepted until now, in that order."""
        return [self._mail(entry) for entry in _entries(self._run_folder / "effects" / "mailbox.jsonl")]

    def answered(self) -> list[str]:
        """Return each recipient that a rule was applied to until now, in that order.

        The server lists a recipient before it waits for the rule's delay. So a recipient that is listed, and whose mail
        is not in `messages`, can be one that the server holds up at this moment.
        """
        return [entry["recipient"] for entry in self._uses() if not _is_own(entry)]

    def uses(self, rule: int) -> list[Use]:
        """Return each application of a rule until now, in that order, without those that `applies` caused."""
        uses = (entry for entry in self._uses() if entry["rule"] == rule)
        return [Use(t=entry["t"], recipient=entry["recipient"]) for entry in uses if not _is_own(entry)]

    def applies(self, rule: int, timeout_s: float = 10.0) -> bool:
        """Name a recipient that no app has, and return whether the server applies this rule to it.

        The rule must be the first one for every recipient. No answer is waited for: a rule may delay it.

        Raises:
            EngineError: nobody speaks SMTP at the server's port.
        """
        recipient = f"{secrets.token_hex(8)}{_OWN}"
        host, port = self.container.host_port(SMTP_PORT)

        def is_listed() -> bool:
            return any(one["rule"] == rule and one["recipient"] == recipient for one in self._uses())

        try:
            with smtplib.SMTP(host, port, timeout=_PROBE_TIMEOUT_S) as client:
                client.ehlo()
                client.mail("")
                client.putcmd("rcpt", f"TO:<{recipient}>")
                try:
                    return wait_until(is_listed, what=f"{self.name} applies a rule", timeout_s=timeout_s)
                except WaitTimeout:
                    return False
                finally:
                    # Else leaving the block would wait for the answers.
                    client.close()
        except OSError as error:
            raise EngineError(f"{self.name} does not speak SMTP: {error}") from error

    def _uses(self) -> list[dict[str, Json]]:
        return _entries(self._run_folder / "control" / "mailbox-used.jsonl")

    def _mail(self, entry: Mapping[str, Json]) -> Mail:
        return Mail(
            key=entry["key"],
            task=entry["task"],
            recipients=tuple(entry["recipients"]),
            path=self._run_folder / entry["file"],
        )

    def _write_rules(self) -> None:
        path = self._run_folder / "control" / "mailbox.json"
        path.parent.mkdir(exist_ok=True)
        # The server must never see a partial file.
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"rules": [asdict(rule) for rule in self._rules]}), encoding="utf-8")
        draft.replace(path)

    def _lacks(self) -> str | None:
        try:
            host, port = self.container.host_port(SMTP_PORT)
            # Entering the block needs the server's greeting; leaving it sends QUIT.
            with smtplib.SMTP(host, port, timeout=_PROBE_TIMEOUT_S):
                return None
        except (OSError, EngineError) as error:
            return f"an SMTP greeting ({error})"


def _is_own(use: Mapping[str, Json]) -> bool:
    return str(use["recipient"]).endswith(_OWN)


def _entries(path: Path) -> list[dict[str, Json]]:
    """Return the complete lines of a file that the server appends to; none if it is not there."""
    if not path.exists():
        return []
    # The last line may still be incomplete.
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in complete.splitlines() if line.endswith(b"}")]
