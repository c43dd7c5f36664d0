"""The rules of the mailbox: which recipient gets which answer, as the host last wrote them."""

import contextlib
import fnmatch
import json
import logging
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.inside.mail_store import append_line, readable
from harness.records.values import Json

IDLE_LIMIT_S = 3600
"""A silent client is dropped after this time, in seconds. It is long because a rule's delay counts as silence."""

_log = logging.getLogger("harness.mailbox")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An answer for some recipients."""

    id: int
    recipient: str
    """A pattern of fnmatch; case-insensitive."""
    reply: str | None
    """A 4xx or 5xx reply of one line; None accepts."""
    delay_s: float
    """Seconds to wait before the answer."""
    times: int | None
    """Number of times that the rule applies; None for no limit."""

    @classmethod
    def from_json(cls, value: Json) -> "Rule":
        """Read a rule from a dict. Raises ValueError, TypeError, KeyError or OverflowError if it is not one."""
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
    """The rules file exists and cannot be read or understood; the message says why."""


class Rules:
    """The rules as the host last wrote them, and how often each was applied."""

    def __init__(self, control: Path) -> None:
        """Count the uses in ``control/mailbox-used.jsonl``, so that a restart does not renew any rule."""
        self._path = control / "mailbox.json"
        self._used_path = control / "mailbox-used.jsonl"
        self._stamp: tuple[int, int, int] | None = None
        self._rules: list[Rule] = []
        self._broken: str | None = None
        self._used: Counter[int] = Counter()
        if self._used_path.exists():
            for line in self._used_path.read_bytes().splitlines():
                # A line torn by a death in mid-write is a use whose client never got the answer.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._used[int(json.loads(line)["rule"])] += 1

    def apply(self, recipient: str) -> Rule | None:
        """Return the first rule that matches `recipient` and has uses left, and count one use of it; None if none does.

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
        use = {"rule": rule.id, "recipient": readable(recipient), "reply": rule.reply, "delay_s": rule.delay_s}
        try:
            append_line(self._used_path, {"t": time.time(), **use})
        except OSError:
            # The rule is applied all the same: the fault must happen even if it cannot be recorded.
            _log.exception("the use of rule %d could not be written", rule.id)

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._stamp:
                return
            # If the file is replaced between `stat` and the read, the old stamp makes the next call read it again.
            rules = [Rule.from_json(value) for value in json.loads(self._path.read_bytes())["rules"]]
        except FileNotFoundError:
            self._stamp, self._rules, self._broken = None, [], None
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            self._stamp, self._broken = None, f"{self._path}: {type(error).__name__}: {error}"
        else:
            self._stamp, self._rules, self._broken = stamp, rules, None
            _log.info("%d rules read from %s", len(rules), self._path)
