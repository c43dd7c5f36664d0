"""Run the suites of other projects on the harness, as they are, and compare what passes with the targets.

    nox -s upstream                     all suites
    nox -s upstream -- celery-smoke     one of them
    nox -s upstream -- celery-smoke -k canvas

Each suite comes from the sdist of its project, from the package index. A suite that its sdist does not contain is run
from a checkout, which a variable of the environment names.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LONGEST_REASON = 110
_TIMEOUT_S = 3 * 3600
_TEST_S = 300
"""The longest time of one test, in seconds. The longest of those that pass waits for a minute."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite, and the number of its tests that have to pass."""

    name: str
    package: str
    """The sdist that it is in, with its version."""
    path: str
    target: int
    checkout: str
    """The variable that names a checkout of the project."""


SUITES = (
    Suite(name="celery-smoke", package="celery==5.7.0", path="t/smoke", target=150, checkout="HARNESS_CELERY_SOURCE"),
    Suite(
        name="pytest-celery-smoke",
        package="pytest-celery==1.3.0",
        path="tests/smoke",
        target=33,
        checkout="HARNESS_PYTEST_CELERY_SOURCE",
    ),
    Suite(
        name="pytest-celery-integration",
        package="pytest-celery==1.3.0",
        path="tests/integration",
        target=75,
        checkout="HARNESS_PYTEST_CELERY_SOURCE",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one suite's tests."""

    collected: int
    passed: int
    missed: Mapping[str, Counter[str]]
    """The tests that did not pass, by the reason: how many there are of each, which differ in their parameters."""


def outcome(report: Path) -> Outcome:
    """Read pytest's XML report."""
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it just now.
    said: dict[tuple[str, str], str | None] = {}
    for case in cases:
        # A test that fails at its teardown as well stands there twice.
        if "name" not in case.attrib:
            continue  # pytest was ended while it ran, and then knows no more of it.
        test = (case.attrib.get("classname", ""), case.attrib["name"])
        fault = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
        said[test] = said.get(test) or (None if fault is None else reason(fault.attrib.get("message", "")))
    missed: dict[str, Counter[str]] = {}
    for (place, name), text in said.items():
        if text is not None:
            missed.setdefault(text, Counter())[f"{place}.{name}".partition("[")[0].lstrip(".")] += 1
    return Outcome(collected=len(said), passed=sum(text is None for text in said.values()), missed=missed)


def reason(message: str) -> str:
    """Return the first line of a message without what differs from test to test."""
    lines = [line for line in message.splitlines() if line.strip()]
    text = lines[0].strip() if lines else "no message"
    text = re.sub(r"/[^ :'\"]+/", ".../", text)
    text = re.sub(r"\b(0x)?[0-9a-f]{8,}(-[0-9a-f]{4,})*\b|\b\d+(\.\d+)?\b", "N", text)
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def table(found: Iterable[tuple[Suite, Outcome | None]]) -> list[str]:
    """Return the table: a line for each suite, below it the reasons with their tests, the most frequent one first."""
    lines = [f"{'suite':<28}{'collected':>10}{'passed':>8}{'target':>8}{'failed':>8}"]
    for suite, seen in found:
        if seen is None:
            lines.append(
                f"{suite.name:<28}  not run: the sdist of {suite.package} has no {suite.path}; {suite.checkout}"
            )
            continue
        failed = seen.collected - seen.passed
        lines.append(f"{suite.name:<28}{seen.collected:>10}{seen.passed:>8}{suite.target:>8}{failed:>8}")
        for text, tests in sorted(seen.missed.items(), key=lambda item: -item[1].total()):
            lines.append(f"  {tests.total():>4}  {text}")
            lines += [f"        {count:>4}  {test}" for test, count in tests.items()]
    return lines


def source(suite: Suite, folder: Path) -> Path | None:
    """Return the folder of a suite's project; None if nothing that can be had contains the suite."""
    if named := os.environ.get(suite.checkout):
        root = Path(named).resolve()
        return root if (root / suite.path).is_dir() else None
    name, _, version = suite.package.partition("==")
    root = folder / f"{name.replace('-', '_')}-{version}"
    if not root.is_dir():
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps")
        subprocess.run([*pip, "--dest", str(folder), suite.package], check=True)
        with tarfile.open(f"{root}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return root if (root / suite.path).is_dir() else None


def run(suite: Suite, root: Path, report: Path, options: Sequence[str]) -> Outcome:
    """Run one suite, and return what its report says."""
    command = (sys.executable, "-m", "pytest", suite.path, "-p", "harness.celery_setup", "-p", "no:locust")
    # Plugins that only its own CI has are left out with the options that need them.
    own = ("-o", "addopts=", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--junitxml={report}")
    # A test that hangs ends its process, and another process goes on with the next test.
    apart = ("--numprocesses", "2", "-o", f"faulthandler_timeout={_TEST_S}", "-o", "faulthandler_exit_on_timeout=true")
    subprocess.run([*command, *own, *apart, *options], cwd=root, check=False, timeout=_TIMEOUT_S)
    return outcome(report)


def main(arguments: Sequence[str]) -> int:
    """Run the suites that are named, or all. Return 1 if one of them is below its target."""
    parser = argparse.ArgumentParser(prog="nox -s upstream --", description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", choices=[*(suite.name for suite in SUITES), []])
    parser.add_argument("--folder", type=Path, default=Path(".harness", "upstream"))
    chosen, options = parser.parse_known_args(arguments)
    folder: Path = chosen.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[Suite, Outcome | None]] = []
    for suite in SUITES:
        if not chosen.suites or suite.name in chosen.suites:
            root = source(suite, folder)
            found.append((suite, run(suite, root, folder / f"{suite.name}.xml", options) if root else None))
    sys.stdout.write("\n".join(table(found)) + "\n")
    return int(any(seen is None or seen.passed < suite.target for suite, seen in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
