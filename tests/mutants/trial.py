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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.mutants.candidates import Candidates
from tests.mutants.observer import PLAN, Seen
from tests.mutants.places import Place

HANG_S = 20.0
"""How long one test may take. After that it hangs, which is noticed."""
_OBSERVED_S = 600.0
"""How long one test may take while all its queries are run with each change, too."""
_ALL_S = 1_200.0
"""How long all tests may take with a change in place."""
_FIRST = 12
"""How many tests are run before all others: those that noticed most changes of the same file."""
_OBSERVER_ROOT = Path(__file__).parents[2]
_NOT_COPIED = shutil.ignore_patterns(".git", ".nox", ".harness", ".*_cache", ".venv", "__pycache__")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", re.MULTILINE)
_HANGS = re.compile(r"^Timeout \(", re.MULTILINE)
_TESTS_FAILED, _NO_TESTS = 1, 5
"""Pytest's exit codes."""


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

    async def observe(self, tests: Sequence[str], candidates: Candidates) -> tuple[int | None, str]:
        """Run tests, and tell `candidates` what they can notice. Return what `test` returns."""
        plan, seen = (self.scratch.with_suffix(suffix) for suffix in (".plan", ".seen"))
        plan.write_text(candidates.plan(seen).to_json())
        # The project need not be the one that the observer is in.
        paths = os.pathsep.join((str(self.root), str(_OBSERVER_ROOT)))
        more = {PLAN: str(plan), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": ""}
        options = ("-p", "tests.mutants.observer")
        code, output = await self.test(tests, *options, hang_s=_OBSERVED_S, all_s=None, **more)
        if code == 0:
            candidates.add(Seen.from_json(seen.read_text()))
        return code, output

    async def test(
        self, tests: Sequence[str], *options: str, hang_s: float = HANG_S, all_s: float | None = _ALL_S, **more: str
    ) -> tuple[int | None, str]:
        """Run tests up to the first that fails. Return pytest's exit code, None if they hang, and its output.

        Args:
            tests: files, or node ids.
            options: for pytest.
            hang_s: the seconds that one test may take.
            all_s: the seconds that all of them may take; None for any number.
            more: variables of the environment.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        own = {
            "PYTHONPATH": str(self.root),
            "TMPDIR": str(self.scratch),
            "PY_COLORS": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment = {**os.environ, **own, **more}
        bound = ("-o", f"faulthandler_timeout={hang_s}", "-o", "faulthandler_exit_on_timeout=true")
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
            output, _ = await asyncio.wait_for(process.communicate(), all_s)
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
    candidates: Candidates
    trees: list[Tree] = field(default_factory=list)
    _noticed: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per file, how many of its changes each test has noticed."""
    _patience: int = 1
    """How many times as long as on a quiet machine tests may take."""

    async def prepare(self, count: int) -> None:
        """Make the trees, see that the tests pass without a change, and which change each can notice.

        Raises:
            MutantsError: they do not pass.
        """
        first = Tree(self.scratch / "0", self.scratch / "0-tmp")
        shutil.copytree(self.project, first.root, symlinks=True, ignore=_NOT_COPIED)
        # A change may leave a file's size and its second as they were, which is all that bytecode is known by
        # otherwise: it would hide the change.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        for folder in {file.partition("/")[0] for file in self.tests}:
            compileall.compile_dir(first.root / folder, quiet=2, invalidation_mode=by_hash)
        self.trees = [first]
        for number in range(1, count):
            root = self.scratch / str(number)
            shutil.copytree(first.root, root, symlinks=True)
            self.trees.append(Tree(root, self.scratch / f"{number}-tmp"))
        files = sorted({test for reaching in self.tests.values() for test in reaching})
        waiting = iter(files)

        async def observe(tree: Tree) -> None:
            for file in waiting:
                code, output = await tree.observe([file], self.candidates)
                # A file may hold tests of an engine alone.
                if code not in {0, _NO_TESTS}:
                    how = "hang" if code is None else "fail"
                    raise MutantsError(f"the unit tests {how} without any change: mend them first.\n{output}")

        try:
            async with asyncio.TaskGroup() as group:
                for tree in self.trees:
                    group.create_task(observe(tree))
        except ExceptionGroup as errors:
            # The others have ended, so that they leave nothing behind.
            raise errors.exceptions[0] from None

    async def attempt(self, place: Place, tree: Tree) -> Outcome:
        """Plant a change, run the tests, and put back what was there.

        Tests that hang without the change, too, run on a busy machine: it gets twice the time, and they run again.
        """
        path = tree.root / place.file
        source = path.read_text()
        while True:
            path.write_text(place.planted(source))
            try:
                outcome, ran = await self._outcome(place, tree)
            finally:
                path.write_text(source)
            if outcome is not Outcome.HUNG or (await self._test(tree, ran))[0] is not None:
                return outcome
            self._patience *= 2

    async def _test(self, tree: Tree, tests: Sequence[str]) -> tuple[int | None, str]:
        return await tree.test(tests, hang_s=HANG_S * self._patience, all_s=_ALL_S * self._patience)

    async def _outcome(self, place: Place, tree: Tree) -> tuple[Outcome, Sequence[str]]:
        """Return what became of a change that is planted, and the tests that ran last."""
        selected: Sequence[str] = ()
        for selected, is_last in self._selections(place):
            code, output = await self._test(tree, selected)
            if code is None:
                return Outcome.HUNG, selected
            # Only a test that failed speaks here; anything else, the last tests have to say.
            if code == _TESTS_FAILED or (code != 0 and is_last):
                # What a test has run itself is shown above it, and may have failed, too.
                failed = [test for test in _FAILED.findall(output) if test.partition("::")[0] in self.tests[place.file]]
                self._noticed[place.file].update(failed[-1:])
                return Outcome.KILLED, selected
        return Outcome.SURVIVED, selected

    def _selections(self, place: Place) -> Iterator[tuple[Sequence[str], bool]]:
        """Yield the tests to run, those first that noticed most changes of the same file. True marks the last ones.

        Nothing is yielded if no test can notice the change.
        """
        files, noticed = self.tests[place.file], self._noticed[place.file]
        able = self.candidates.of(place)
        likely = self.candidates.probable(place) or [test for test, _ in noticed.most_common(_FIRST)]
        probable = sorted(
            (test for test in (likely if able is None else able) if test.partition("::")[0] in files),
            key=lambda test: (-noticed[test], files.index(test.partition("::")[0])),
        )
        rest = files if able is None else probable[_FIRST:]
        if probable:
            yield probable[:_FIRST], not rest
        if rest:
            yield rest, True

    async def control(self) -> None:
        """See that the tests that noticed changes pass in each tree, now that nothing is changed in it.

        Raises:
            MutantsError: they do not, so that what they noticed was not the changes.
        """
        noticed = sorted({test for tests in self._noticed.values() for test in tests})
        for tree in self.trees if noticed else ():
            code, output = await self._test(tree, noticed)
            if code != 0:
                raise MutantsError(f"tests that noticed changes fail without any, too: mend them first.\n{output}")
