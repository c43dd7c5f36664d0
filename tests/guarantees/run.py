"""Measure what the emails scenario survives under each setting, and write docs/guarantees.md.

    nox -s guarantees                   all settings, three times, and the page
    nox -s guarantees -- --times 1 late_ack-quorum

The page is written only if all settings were measured, more than once, and all times agree in every cell.

Exit codes: 0 if all times agree, 1 if they do not, 2 for wrong use, 3 if a cell is unknown.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import kombu

from harness.audit.run_folder import RunFolder
from harness.errors import HarnessError
from harness.project.settings import load
from harness.records import journal
from harness.records.event import Kind
from harness.records.survival import Cell, Outcome, Result
from harness.records.values import Json
from harness.report import survive_grid
from harness.running import survive
from harness.running.run import stack_for
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from scenarios.emails.scenario import scenario

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
ACKNOWLEDGEMENTS: Mapping[str, Mapping[str, Json]] = {
    "early_ack": {"acks_late": False, "reject_on_worker_lost": None, "retry_on_worker_lost": False},
    "late_ack": {"acks_late": True, "reject_on_worker_lost": None, "retry_on_worker_lost": False},
    "late_ack_reject": {"acks_late": True, "reject_on_worker_lost": True, "retry_on_worker_lost": False},
}
"""The options of the task, by the name of the setting."""
TITLES = {
    "early_ack": "Early acknowledgement, Celery's default",
    "late_ack": "Late acknowledgement",
    "late_ack_reject": "Late acknowledgement, and `reject_on_worker_lost`",
}
QUEUE_TYPES = ("classic", "quorum")
TIMES = 3
_FAILED, _UNKNOWN = 1, 3

Outcomes = Mapping[Cell, Outcome]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One combination of acknowledgement and type of queue."""

    acknowledgement: str
    queue_type: str

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return f"{self.acknowledgement}-{self.queue_type}"

    @property
    def celery(self) -> dict[str, Json]:
        """The settings of Celery that make it so, whatever the task's own options are."""
        return {
            "task_default_queue_type": self.queue_type,
            "task_annotations": {"*": dict(ACKNOWLEDGEMENTS[self.acknowledgement])},
        }


SETTINGS = {
    one.name: one
    for one in (
        Setting(acknowledgement=acknowledgement, queue_type=queue_type)
        for acknowledgement, queue_type in product(ACKNOWLEDGEMENTS, QUEUE_TYPES)
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="guarantees", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"of {', '.join(SETTINGS)} (all)")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each is measured (%(default)s)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.settings if name not in SETTINGS]:
        parser.error(f"there is no setting {unknown[0]}; there are {', '.join(SETTINGS)}")
    if given.times < 1:
        parser.error("measure each at least once")
    chosen = [SETTINGS[name] for name in given.settings] or list(SETTINGS.values())
    try:
        with tempfile.TemporaryDirectory() as root, SharedParts(_say) as session:
            versions = _versions(session, Path(root))
            seen = {one: [_measured(session, one, Path(root)) for _ in range(given.times)] for one in chosen}
    except HarnessError as error:
        _say(f"error: {error}")
        return 2
    return _conclude(seen, versions, is_whole=not given.settings and given.times > 1)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _versions(session: SharedParts, root: Path) -> str:
    """Return the versions of Celery in a worker, and of the broker, in words."""
    folder = RunFolder.create(root, "versions")
    with Stack(session, replace(stack_for(scenario, load(ROOT)), workers=1), folder) as stack:
        with kombu.Connection(stack.login.amqp_url_outside) as connection:
            broker = connection.connection.server_properties["version"]
        up = next(event for event in journal.read(folder.journal) if event.kind is Kind.UP and "versions" in event.data)
    return f"Celery {up.data['versions']['celery']} and RabbitMQ {broker}"


def _measured(session: SharedParts, setting: Setting, root: Path) -> Outcomes:
    """Try all cells of the scenario once."""
    stack = replace(stack_for(scenario, load(ROOT)), settings=setting.celery)
    subject = survive.Subject(name=scenario.name, stack=stack, scenario=scenario)
    cells = survive.trial(session, subject, root, survive.MEETS).cells
    results = list(survive.try_cells(session, subject, cells, root))
    for one in results:
        if one.outcome is Outcome.UNKNOWN:
            _say(f"{setting.name}: {one.cell} is unknown: {one.why}")
    outcomes = {one.cell: one.outcome for one in results}
    _say(f"{setting.name}:")
    for line in _grid(outcomes):
        _say(f"  {line}")
    return outcomes


def _conclude(seen: Mapping[Setting, Sequence[Outcomes]], versions: str, *, is_whole: bool) -> int:
    """Say whether all times agree, and write the page if they do. Returns the exit code."""
    differing = [line for setting, times in seen.items() for line in _differing(setting, times)]
    for line in differing:
        _say(f"the times differ: {line}")
    if any(Outcome.UNKNOWN in one.values() for times in seen.values() for one in times):
        return _UNKNOWN
    if differing:
        return _FAILED
    if is_whole:
        grids = {setting: times[0] for setting, times in seen.items()}
        (times,) = {len(one) for one in seen.values()}
        PAGE.write_text("\n".join(page(grids, f"{datetime.now(UTC):%Y-%m-%d}", versions, times)) + "\n")
        _say(f"written: {PAGE.relative_to(ROOT)}")
    return 0


def _differing(setting: Setting, times: Sequence[Outcomes]) -> Iterator[str]:
    """Yield each cell whose outcomes differ."""
    for cell in dict.fromkeys(cell for one in times for cell in one):
        outcomes = [one[cell].value if cell in one else "not tried" for one in times]
        if len(set(outcomes)) > 1:
            yield f"{setting.name}: {cell}: {', '.join(outcomes)}"


def page(grids: Mapping[Setting, Outcomes], date: str, versions: str, times: int) -> Iterator[str]:
    """Yield the lines of docs/guarantees.md."""
    yield from (
        "# What survives, as measured",
        "",
        f"On {date}, with {versions}, {times} times; every cell had the same outcome each time.",
        "`nox -s guarantees` measures it anew, and writes this page.",
        "",
        "The task is `scenarios.emails.send_receipt`, which mails a receipt. One receipt is held at the moment in the",
        "first column. The fault at the head of the column meets it there. Then all is healed, comes to rest and is",
        "audited. [survive.md](survive.md#the-cells) explains moments, faults and outcomes. `effect twice` is said of",
        "each second execution that commits or mails. Before a mail, this task writes into an outbox, which is such a",
        "commit, and keeps most second executions from mailing again.",
        "",
        "The task's options and the type of its queue are set from outside:",
        "",
        "```console",
        "$ harness survive emails --set task_default_queue_type=quorum \\",
        '    --set \'task_annotations={"*": {"acks_late": true, "reject_on_worker_lost": true}}\'',
        "```",
        "",
    )
    for acknowledgement, title in TITLES.items():
        own = {setting: outcomes for setting, outcomes in grids.items() if setting.acknowledgement == acknowledgement}
        yield from (f"## {title}", "")
        by_queue = {setting.queue_type: outcomes for setting, outcomes in own.items()}
        if len({tuple(sorted((str(cell), out) for cell, out in one.items())) for one in by_queue.values()}) == 1:
            yield from (f"The same on {' and '.join(f'{name}' for name in by_queue)} queues:", "")
            yield from (*_grid(next(iter(by_queue.values()))), "")
            continue
        for queue_type, outcomes in by_queue.items():
            yield from (f"On a {queue_type} queue:", "", *_grid(outcomes), "")


def _grid(outcomes: Outcomes) -> list[str]:
    results = [Result(cell=cell, outcome=outcome, why="", folder="") for cell, outcome in outcomes.items()]
    return list(survive_grid.markdown_table(results))


if __name__ == "__main__":
    sys.exit(main())
