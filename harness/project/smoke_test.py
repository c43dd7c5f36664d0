"""The test file that `harness init` writes: it is green for an app as it is, and shows the next step."""

import configparser
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_NAMES = ("test_harness_smoke.py", "harness_smoke_test.py", "tests_harness_smoke.py", "check_harness_smoke.py")
_ADDRESS = '"zoe@example.com"'


@dataclass(frozen=True, kw_only=True)
class SmokeTest:
    """The facts about the app that its tests are made of."""

    sends: str | None
    """A task that anybody can send; None if there is none."""
    queue: str | None
    """The queue that the task is sent to; None for Celery's own."""
    shown: str = "shop.welcome"
    """A task that the comments send."""
    arguments: tuple[str, ...] = ("address",)
    """The names of its arguments."""
    keywords: tuple[str, ...] = ()
    """The names of those that are given by their names."""
    address: str | None = "address"
    """The one that has the address of a mail; None if it sends none."""

    def text(self) -> str:
        """Return the file's text."""
        return _TEXT.format(
            smoke=self._sending("The task touches nothing outside of itself.")
            if self.sends
            else self._nothing_to_send(),
            takes_over=self._sending("") if self.sends else "",
            next_step=_NEXT_STEP.format(**self._mailing()),
        )

    def _nothing_to_send(self) -> str:
        return _NOTHING_TO_SEND.format(task=self.shown, arguments=self._arguments())

    def _mailing(self) -> dict[str, str]:
        """Return the task of the last comment, which has to be one that sends a mail."""
        if self.address is None:
            return {"task": "shop.welcome", "function": "welcome", "arguments": f"[{_ADDRESS}]"}
        function = self.shown.rpartition(".")[2]
        return {
            "task": self.shown,
            "function": function if function.isidentifier() else "mail",
            "arguments": self._arguments(),
        }

    def _arguments(self) -> str:
        """Return the arguments of the shown task, with a place for each value that only its author knows."""
        values = {name: _ADDRESS if name == self.address else f"<{name}>" for name in (*self.arguments, *self.keywords)}
        by_name = ", ".join(f'"{name}": {values[name]}' for name in self.keywords)
        in_order = f"[{', '.join(values[name] for name in self.arguments)}]"
        return f"{in_order}, {{{by_name}}}" if by_name else in_order

    def _sending(self, comment: str) -> str:
        queue = f', queue="{self.queue}"' if self.queue else ""
        lines = [
            "",
            *([f"# {comment}"] if comment else []),
            f'stack.producer.send("{self.sends}"{queue})',
            "audit = stack.settle()",
            "assert audit.passed, audit.text()",
        ]
        return "".join(f"    {line}\n" if line else "\n" for line in lines)


_TEXT = '''"""Does the app start, and do its tasks survive? Written once by `harness init`: it is yours to change."""


def test_a_worker_starts_and_knows_the_tasks(stack):
    assert stack.alive() == {{"worker-1"}}
    assert stack.workers[0].tasks
{smoke}

def test_another_worker_takes_over_from_a_killed_one(stack):
    stack.workers[0].kill()
    stack.add_worker()
    assert stack.alive() == {{"worker-2"}}
    assert stack.workers[1].tasks == stack.workers[0].tasks
{takes_over}{next_step}'''
_NOTHING_TO_SEND = """
    # No task was found that anybody can send. Send one of yours, and account for it:
    #     stack.producer.send("{task}", {arguments})
    #     assert stack.settle().passed
"""
_NEXT_STEP = """

# The next step: say what a task of yours has to do, and kill the worker in the midst of it. With Celery's defaults the
# task is lost, and the audit says why; with `task_acks_late` it runs again.
#
#     from harness import Expect, mail
#     from harness.wait import wait_until
#
#     def test_{function}_survives_a_killed_worker(stack, mailbox):
#         expect = Expect(effects=[mail(to="zoe@example.com")])
#         mailbox.answer("zoe@*", delay_s=5, times=1)
#         stack.producer.send("{task}", {arguments}, expect=expect)
#         wait_until(mailbox.answered, what="the slow mail is on its way", timeout_s=20)
#         stack.workers[0].kill()
#         stack.add_worker()
#         audit = stack.settle()
#         assert audit.passed, audit.text()
"""


def place_for(root: Path) -> PurePosixPath:
    """Return the path for the test file: where the project's own pytest looks for tests, by a name that it takes."""
    options = _options_in(root) or {}
    patterns = _words(options.get("python_files")) or ["test_*.py", "*_test.py"]
    name = next((one for one in _NAMES if any(PurePosixPath(one).match(pattern) for pattern in patterns)), _NAMES[0])
    for folder in (*_words(options.get("testpaths")), "tests", "test"):
        if not re.search(r"[*?\[]", folder) and not folder.startswith(("/", "..")) and (root / folder).is_dir():
            return PurePosixPath(folder) / name
    return PurePosixPath("tests") / name


def _words(value: object) -> list[str]:
    return value.split() if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []


def _options_in(folder: Path) -> Mapping[str, Any] | None:
    """Return pytest's settings in a folder; None if it has none."""
    for name in ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        try:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = _of_toml(text) if name.endswith(".toml") else _of_ini(text, name)
        if found is not None:
            return found
    return None


def _of_toml(text: str) -> Mapping[str, Any] | None:
    try:
        found: Any = tomllib.loads(text).get("tool", {}).get("pytest", {})
        options = found.get("ini_options", found or None)
    except (tomllib.TOMLDecodeError, AttributeError):
        return None  # Whoever writes into the file says what is wrong with it.
    return options if isinstance(options, dict) else None


def _of_ini(text: str, name: str) -> Mapping[str, Any] | None:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    if parser.has_section(section):
        return dict(parser.items(section))
    # A pytest.ini counts even if it is empty.
    return {} if name.endswith("pytest.ini") else None
