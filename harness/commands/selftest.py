"""The command `harness selftest`: does the audit find what it claims to find?"""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, examples, runs_option
from harness.console import STYLES, Console, Words
from harness.printable import printable
from harness.records.verdict import Verdict
from harness.report import markdown, progress, step_summary
from harness.selftest import selftest
from harness.selftest.plant import Outcome, Result
from harness.stack.shared_parts import SharedParts


@click.command("selftest", epilog=examples("harness selftest", "harness selftest --json"))
@AS_JSON
@runs_option("Where run folders are made.")
def selftest_(*, as_json: bool, root: Path) -> int:
    """Plant every defect that the audit claims to see, one at a time, and show what it found.

    The control is a real run in which nothing goes wrong. Most defects are planted in a copy of its record, the others
    in a real stack. The exit code is 0 only if each defect is found, in its own fate and finding and in no other; 1 if
    one is missed or confused; and 3 if one could not be planted.
    """
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with (
        progress.of_plants(selftest.planted()) as (say, tell),
        SharedParts(say) as session,
        # An interrupted selftest takes its stacks down before the session ends.
        closing(selftest.run(session, root)) as found,
    ):
        for outcome in found:
            outcomes.append(outcome)
            tell(outcome.name)
            if outcome.result is not Result.FOUND:
                say(f"{outcome.result}: {outcome.name}")
    verdict = Verdict.worst([outcome.verdict for outcome in outcomes])
    took_s = time.monotonic() - began
    summary = _summary(outcomes, verdict, took_s).plain
    step_summary.append(lambda: f"### harness selftest\n\n{markdown.escaped(summary)}\n\n", complain)
    if as_json:
        click.echo(json.dumps(_to_json(outcomes, verdict, took_s), indent=2))
    else:
        console = Console()
        console.print(_table(outcomes))
        console.print(_summary(outcomes, verdict, took_s))
    return verdict.exit_code


def _to_json(outcomes: Sequence[Outcome], verdict: Verdict, took_s: float) -> dict[str, object]:
    return {
        "format": 1,
        "verdict": verdict.value,
        "planted": len(outcomes),
        "found": sum(outcome.result is Result.FOUND for outcome in outcomes),
        "took_s": round(took_s, 1),
        "plants": [outcome.to_json() for outcome in outcomes],
    }


def _table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of what was planted, what was found, and whether that is right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("planted", "found", ""):
        table.add_column(column, no_wrap=not column)
    for outcome in outcomes:
        table.add_row(
            Words(outcome.defect),
            Words(printable(_found(outcome))),
            Text(outcome.result.value, style=STYLES[outcome.verdict]),
        )
    return table


def _found(outcome: Outcome) -> str:
    if outcome.error is not None:
        return outcome.error
    if outcome.result is Result.FOUND:
        return outcome.seen.words()
    return f"{outcome.seen.words()}; wanted: {outcome.wanted.words()}"


def _summary(outcomes: Sequence[Outcome], verdict: Verdict, took_s: float) -> Text:
    found = sum(outcome.result is Result.FOUND for outcome in outcomes)
    wrong = [f"{outcome.name} is {outcome.result}" for outcome in outcomes if outcome.result is not Result.FOUND]
    more = (
        f": {', '.join(wrong)}"
        if wrong
        else f", with {len(selftest.fates())} fates and {len(selftest.codes())} findings"
    )
    return Text.assemble(
        (verdict.value, STYLES[verdict]), f": {found} of {len(outcomes)} found in {took_s:.0f} s{more}."
    )
