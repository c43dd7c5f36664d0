"""Plant small changes into what decides a verdict, one at a time, and see whether the unit tests notice.

``python -m tests.mutants.run --seed 7 8``. A change that no test notices is a gap in the tests, unless it makes no
difference: then it is listed in no_difference.toml with the reason, and counted apart.

Exit codes: 0 if at least 95 % of each seed's changes were noticed, 1 if fewer were, 2 for wrong use or for unit tests
that fail without any change, 3 if all that were drawn make no difference.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.mutants.candidates import Candidates
from tests.mutants.places import Key, Place, places
from tests.mutants.reach import Reach
from tests.mutants.trial import MutantsError, Outcome, Tree, Trials

ROOT = Path(__file__).parents[2]
NO_DIFFERENCE = Path(__file__).with_name("no_difference.toml")
DECIDING = (
    "harness/audit/audit.sql",
    "harness/audit/audit.py",
    "harness/audit/explain.py",
    "harness/audit/remains.py",
    "harness/audit/ledger.py",
    "harness/audit/witnesses.py",
    "harness/audit/evidence_database.py",
    "harness/audit/witnesses.sql",
    "harness/audit/row_file.py",
    "harness/audit/deleted_rows.py",
    "harness/records/values.py",
    "harness/audit/json_lines.py",
    "harness/audit/beat/tick_rules.py",
    "harness/audit/beat/tick_findings.py",
    "harness/audit/beat/tick_records.py",
    "harness/audit/beat/beat_log.py",
    "harness/audit/beat/beat_history.py",
    "harness/audit/beat/crontab.py",
    "harness/stack/settling.py",
    "harness/stack/left_in_broker.py",
    "harness/stack/limits.py",
    "harness/stack/row_effects.py",
    "harness/audit/results_copy.py",
)
"""The files that decide a verdict."""
LEAST = 0.95
"""The share of the changes that have to be noticed."""
_HARMLESS = "harmless"
_PROGRESS = 10
"""Changes tried between two words of progress: each takes seconds, or minutes if it survives."""
_FAILED, _WRONG_USE, _UNKNOWN = 1, 2, 3
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    given = _options(arguments)
    try:
        return asyncio.run(_run(given))
    except MutantsError as error:
        sys.stderr.write(f"error: {error}\n")
        return _WRONG_USE
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[1],
        dest="seeds",
        help="for each, other changes are drawn (1)",
    )
    parser.add_argument("--count", type=_positive, default=100, help="how many are drawn (%(default)s)")
    parser.add_argument("--files", nargs="+", default=DECIDING, metavar="FILE", help="the files to change")
    parser.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, help="how many are tried at a time (%(default)s)"
    )
    parser.add_argument("--project", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--no-difference", type=Path, default=NO_DIFFERENCE, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def known(path: Path) -> dict[Key, str]:
    """Return why each listed change makes no difference, by the key of its place."""
    try:
        return {
            (one["file"], one["text"], one["old"], one["new"], int(one.get("nth", 1))): str(one["reason"])
            for one in tomllib.loads(path.read_text()).get("change", [])
        }
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise MutantsError(f"{path.name} cannot be read ({error!r}): its first lines say what it holds.") from error


def all_places(project: Path, files: Iterable[str]) -> list[Place]:
    """Return all places of some files. A file is given by its path, or by its name if that is among `DECIDING`."""
    found: list[Place] = []
    for given in files:
        file = next((one for one in DECIDING if Path(one).name == given), Path(given).as_posix())
        try:
            found += places(file, (project / file).read_text())
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise MutantsError(f"{given} cannot be read ({error}): name a file of the project.") from error
    if not found:
        raise MutantsError("there is nothing to change in these files: name others.")
    return found


async def _run(given: argparse.Namespace) -> int:
    task = asyncio.current_task()
    if task is not None:
        # Else it would leave its copies and its tests behind.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    harmless = known(given.no_difference)
    found = all_places(given.project, given.files)
    count = min(given.count, len(found))
    drawn = {seed: random.Random(seed).sample(found, count) for seed in given.seeds}  # noqa: S311 - it keeps no secret.
    reach = Reach(given.project, "tests/unit")
    tests = {file: reach.tests_of(file) for file in {one.file for some in drawn.values() for one in some}}
    if untested := sorted(file for file, reaching in tests.items() if not reaching):
        raise MutantsError(f"no unit test reaches {', '.join(untested)}: write one first.")
    with tempfile.TemporaryDirectory(prefix="celery-harness-mutants-") as scratch:
        candidates = Candidates(given.project, {place.key: place for some in drawn.values() for place in some}.values())
        trials = Trials(given.project, Path(scratch), tests, candidates)
        _say("running the tests without a change, to see which of them can notice each")
        await trials.prepare(min(given.workers, count))
        codes = []
        for seed, some in drawn.items():
            _say(f"{len(found)} places, {count} tried, seed {seed}")
            codes.append(_told(await _try_all(trials, some, harmless)))
        await trials.control()
    return max(codes, key=(0, _UNKNOWN, _FAILED).index)


def _told(counts: Mapping[str, int]) -> int:
    """Say what became of the changes of one seed, and return the exit code."""
    killed, survived = counts[Outcome.KILLED] + counts[Outcome.HUNG], counts[Outcome.SURVIVED]
    more = (f"{counts[Outcome.HUNG]} of the killed hung", f"{counts[_HARMLESS]} more make no difference")
    said = "; ".join(words for words in more if not words.startswith("0 "))
    _say(f"killed {killed} survived {survived}{said and f' ({said})'}")
    return _exit_code(killed, survived)


async def _try_all(trials: Trials, drawn: Sequence[Place], harmless: Mapping[Key, str]) -> Counter[str]:
    """Try each place in whichever tree is free, print each that survives, and count what became of them."""
    left = iter(drawn)
    counts: Counter[str] = Counter()

    async def try_some(tree: Tree) -> None:
        for place in left:
            outcome = await trials.attempt(place, tree)
            is_harmless = place.key in harmless
            counts[_HARMLESS if is_harmless and outcome is Outcome.SURVIVED else outcome.value] += 1
            if is_harmless and outcome is not Outcome.SURVIVED:
                _say(f"noticed, and listed as making no difference: {place}")
            elif outcome is Outcome.SURVIVED and not is_harmless:
                _say(f"survived: {place}")
            if (tried := counts.total()) % _PROGRESS == 0:
                _say(f"tried {tried} of {len(drawn)}")

    async with asyncio.TaskGroup() as group:
        for tree in trials.trees:
            group.create_task(try_some(tree))
    return counts


def _exit_code(killed: int, survived: int) -> int:
    if not killed + survived:
        return _UNKNOWN
    return 0 if killed >= LEAST * (killed + survived) else _FAILED


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
