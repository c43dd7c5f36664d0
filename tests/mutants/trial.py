"""Try changes in copies of the project, each with the tests that reach the changed file."""

import asyncio
import compileall
import contextlib
import os
import py_compile
import re
import shutil
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.mutants.places import Place

HANG_S = 20.0
"""How long one test may take. After that it hangs, which is noticed."""
_ALL_S = 1_200.0
"""How long all tests may take."""
_FIRST = 12
"""How many tests are run before all others: those that noticed most changes of the same file."""
_NOT_COPIED = shutil.ignore_patterns(".git", ".nox", ".harness", ".*_cache", ".venv", "__pycache__")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", re.MULTILINE)
_HANGS = re.compile(r"^Timeout \(", re.MULTILINE)
_TESTS_FAILED = 1
"""Pytest's exit code."""


class MutantsError(Exception):
    """The changes cannot be tried. The message says why, and what to do."""


class Outcome(StrEnum):
    """What became of a change."""

    KILLED = "killed"
    HUNG = "hung"
    SURVIVED = "survived"


@dataclass(frozen=True)
class Tree:
    """A copy of the project, and a folder for what its tests leave behind."""

    root: Path
    scratch: Path

    async def test(self, tests: Sequence[str], *options: str, keep_bytecode: bool = False) -> tuple[int | None, str]:
        """Run tests up to the first that fails. Return pytest's exit code, None if they hang, and its output."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(self.root), "TMPDIR": str(self.scratch), "PY_COLORS": "0"}
        # An empty value counts as not set.
        environment["PYTHONDONTWRITEBYTECODE"] = "" if keep_bytecode else "1"
        bound = ("-o", f"faulthandler_timeout={HANG_S}", "-o", "faulthandler_exit_on_timeout=true")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider"),
            *(*bound, *options, *tests),
            cwd=self.root,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _ALL_S)
        except TimeoutError:
            return None, ""
        else:
            said = output.decode(errors="replace")
            return None if _HANGS.search(said) else process.returncode, said
        finally:
            # What a test has started, and did not end, goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@dataclass
class Trials:
    """Runs the trials of one project, several at a time, each in a tree of its own."""

    project: Path
    scratch: Path
    tests: Mapping[str, Sequence[str]]
    """Per file that is changed, its tests, the nearest first."""
    trees: list[Tree] = field(default_factory=list)
    _noticed: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per file, how many of its changes each test has noticed."""

    async def prepare(self, count: int) -> None:
        """Make the trees, and see that the tests pass without a change. Raises MutantsError if they do not."""
        first = Tree(self.scratch / "0", self.scratch / "0-tmp")
        shutil.copytree(self.project, first.root, symlinks=True, ignore=_NOT_COPIED)
        # A change may leave a file's size and its second as they were, which is all that bytecode is known by
        # otherwise: it would hide the change.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        for folder in {file.partition("/")[0] for file in self.tests}:
            compileall.compile_dir(first.root / folder, quiet=2, invalidation_mode=by_hash)
        tests = sorted({test for reaching in self.tests.values() for test in reaching})
        code, output = await first.test(tests, keep_bytecode=True)
        if code != 0:
            raise MutantsError(
                f"the unit tests {'hang' if code is None else 'fail'} without any change: mend them first.\n{output}"
            )
        self.trees = [first]
        for number in range(1, count):
            root = self.scratch / str(number)
            shutil.copytree(first.root, root, symlinks=True)
            self.trees.append(Tree(root, self.scratch / f"{number}-tmp"))

    async def attempt(self, place: Place, tree: Tree) -> Outcome:
        """Plant a change, run the tests, and put back what was there."""
        path = tree.root / place.file
        source = path.read_text()
        path.write_text(place.planted(source))
        try:
            return await self._outcome(place.file, tree)
        finally:
            path.write_text(source)

    async def _outcome(self, file: str, tree: Tree) -> Outcome:
        tests = self.tests[file]
        first = [test for test, _ in self._noticed[file].most_common(_FIRST)]
        # Only a test that failed speaks here; anything else, all tests have to say.
        for selected in (first, tests) if first else (tests,):
            code, output = await tree.test(selected)
            if code is None:
                return Outcome.HUNG
            if code == _TESTS_FAILED or (code != 0 and selected is tests):
                # What a test has run itself is shown above it, and may have failed, too.
                failed = [test for test in _FAILED.findall(output) if test.partition("::")[0] in tests]
                self._noticed[file].update(failed[-1:])
                return Outcome.KILLED
        return Outcome.SURVIVED

    async def control(self) -> None:
        """See that the tests that noticed changes pass in each tree, now that nothing is changed in it.

        Raises:
            MutantsError: they do not, so that what they noticed was not the changes.
        """
        noticed = sorted({test for tests in self._noticed.values() for test in tests})
        for tree in self.trees if noticed else ():
            code, output = await tree.test(noticed)
            if code != 0:
                raise MutantsError(f"tests that noticed changes fail without any, too: mend them first.\n{output}")
