"""The checks of a run as JUnit XML, which CI systems read. What is not known is an error there, never a pass.

The file is written when a command begins, and then says that nothing is known yet. So a command that is killed, or that
ends with an error, leaves no file of an earlier run, and none that looks as if all was well.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from harness.errors import HarnessError, UsageError, told
from harness.printable import printable
from harness.records.check import Check
from harness.records.regular_file import replacing
from harness.records.verdict import Verdict

_NO_XML = re.compile("[\ufffe\uffff]")
"""Characters that XML 1.0 forbids, and that are printable otherwise."""
_LONGEST = 20_000
"""The most characters of a text. CI systems refuse files of some megabytes; a run folder has the whole."""
_MESSAGE = 300
"""The most characters of a message, which CI systems show in one line."""
Complain = Callable[[str], None]
"""Shows an error to the user."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The checks of one run."""

    name: str
    """The same in each run, such as the scenario's name: CI systems compare by it."""
    checks: tuple[Check, ...]
    about: dict[str, str] = field(default_factory=dict)
    """More about the run, such as its folder."""
    text: str = ""
    """The output of the run."""


class JUnitFile:
    """The JUnit file of one command."""

    def __init__(self, path: Path, name: str, complain: Complain) -> None:
        """Write the file for the first time. Raises UsageError if it cannot be written.

        Args:
            path: of the file; its folder is made.
            name: of the command, for as long as no suite is known.
            complain: receives what goes wrong later.
        """
        self._path, self._name, self._complain = path, name, complain
        self._began_t, self._began_s = datetime.now(UTC), time.monotonic()
        self._suites: list[ET.Element] = []
        if path.exists() and not path.is_file():
            raise UsageError(f"--junit: {path} is no file: give the name of one that is there, or of a new one.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write([self._element(_broken(name, "the run did not come to its end."))])
        except OSError as error:
            raise UsageError(f"--junit: {path} cannot be written: {error.strerror}.") from None

    def add(self, suite: Suite) -> None:
        """Write the file with one more suite. A file that cannot be written is told, and changes no verdict."""
        self._suites.append(self._element(suite))
        try:
            self._write(self._suites)
        except OSError as error:
            self._complain(f"{self._path} cannot be written: {error.strerror}. The verdict stands.")

    def fail(self, text: str) -> None:
        """Write that there is no account of a run, and why."""
        self.add(_broken(self._name, text))

    def _write(self, suites: list[ET.Element]) -> None:
        """Replace the file, whole or not at all. Raises OSError."""
        root = ET.Element("testsuites", name="celery harness")
        for name in ("tests", "failures", "errors", "skipped"):
            root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
        root.extend(suites)
        ET.indent(root)
        with replacing(self._path) as partial:
            ET.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)

    def _element(self, suite: Suite) -> ET.Element:
        took_s, began = time.monotonic() - self._began_s, self._began_t.isoformat(timespec="seconds")
        self._began_t, self._began_s = datetime.now(UTC), time.monotonic()
        element = ET.Element("testsuite", name=text_of(suite.name), timestamp=began, time=f"{took_s:.3f}")
        outcomes = [_outcome(check) for check in suite.checks]
        element.set("tests", str(len(outcomes)))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            element.set(name, str(sum(one is not None and one.tag == tag for one in outcomes)))
        if suite.about:
            properties = ET.SubElement(element, "properties")
            for name, value in suite.about.items():
                ET.SubElement(properties, "property", name=text_of(name), value=text_of(value))
        for check, outcome in zip(suite.checks, outcomes, strict=True):
            place = ".".join(filter(None, ["harness", suite.name, check.group]))
            case = ET.SubElement(element, "testcase", classname=text_of(place), name=text_of(check.name))
            if outcome is not None:
                case.append(outcome)
            elif check.text:
                ET.SubElement(case, "system-out").text = text_of(check.text)
        if suite.text:
            ET.SubElement(element, "system-out").text = text_of(suite.text)
        return element


def _outcome(check: Check) -> ET.Element | None:
    """Return the element that says that a check did not pass; None if it passed."""
    if check.verdict is Verdict.PASS:
        return None
    tag = "failure" if check.verdict is Verdict.FAIL else "error"
    first = check.known or check.text.partition("\n")[0] or check.verdict.value
    element = ET.Element("skipped" if check.known else tag, message=text_of(first, _MESSAGE))
    element.set("type", text_of(check.kind or check.verdict.value))
    element.text = text_of(check.text)
    return element


def text_of(text: str, longest: int = _LONGEST) -> str:
    """Return a text without the characters that XML forbids, which are escaped, and not longer than `longest`."""
    shown = _NO_XML.sub(lambda found: ascii(found[0])[1:-1], printable(text))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _broken(name: str, text: str) -> Suite:
    return Suite(
        name=name,
        checks=(Check(name="the run comes to its end", verdict=Verdict.UNKNOWN, kind="no-account", text=text),),
    )


@contextmanager
def written(path: Path | None, name: str, complain: Complain) -> Iterator[Callable[[Suite], None]]:
    """Yield a function that writes a suite into a JUnit file; an error or Ctrl-C is written there, and goes on.

    Args:
        path: of the file; None for no file.
        name: of the command.
        complain: receives what goes wrong with the file at the end.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    file = JUnitFile(path, name, complain)
    try:
        yield file.add
    except BaseException as error:
        text = told(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}".rstrip(": ")
        file.fail(text)
        raise


def suite(
    name: str, checks: Iterable[Check], *, verdict: Verdict, folder: Path, text: str = "", **about: object
) -> Suite:
    """Return the suite of a run that has an account."""
    facts = {"verdict": verdict.value, "run folder": str(folder), **{key: str(value) for key, value in about.items()}}
    return Suite(name=name, checks=tuple(checks), about=facts, text=text)
