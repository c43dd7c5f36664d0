"""The command `harness send`: tasks from the shell to a stack that is up."""

from collections.abc import Iterator

import click
from rich.text import Text

from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, examples, print_json
from harness.console import Console
from harness.errors import UsageError
from harness.printable import printable
from harness.records.event import Kind
from harness.records.values import Json
from harness.records.verdict import Verdict
from harness.running import playground, sending

_TIMEOUT_S = 60.0


@click.command(
    epilog=examples(
        """harness send shop.welcome '"zoe@example.com"' --count 20 --wait""",
        """harness send shop.import --kwargs '{"rows": 3}' --queue slow --json""",
    )
)
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("--kwargs", default="{}", help="The keyword arguments, a JSON object.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many such tasks to send.")
@click.option("--queue", help="The queue to send to.  [default: as the app's routes say]")
@click.option("--countdown", "countdown_s", type=click.FloatRange(min=0), help="Seconds that a worker holds them back.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the results, and print them.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=_TIMEOUT_S,
    show_default=True,
    help="Seconds without any of them ending after which waiting ends.",
)
@AS_JSON
def send(
    *,
    name: str,
    args: tuple[str, ...],
    kwargs: str,
    count: int,
    queue: str | None,
    countdown_s: float | None,
    waits: bool,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Send the task NAME with ARGS to the stack that `harness up` brought up, and print its id.

    Each of ARGS is a JSON value: 3, true, '"a@b.example"', '{"sku": "TEA-01"}'. The stack accounts for the task at its
    end. The exit code is 0 if the broker took all of them (with --wait: if they succeeded), 1 if it refused one (or one
    failed), and 3 if nobody knows.
    """
    named = sending.parsed(kwargs)
    if not isinstance(named, dict):
        raise UsageError(f"--kwargs {kwargs} is no JSON object, such as '{{\"amount\": 3}}'.")
    order = sending.Order(
        name=name,
        args=[sending.parsed(text) for text in args],
        kwargs=named,
        count=count,
        queue=queue,
        countdown_s=countdown_s,
    )
    ground = sending.ready(playground.read())
    console = Console(soft_wrap=True, stderr=as_json)
    verdicts = [Verdict.PASS]
    accepted: list[str] = []
    tasks: dict[str, dict[str, Json]] = {}
    for sent in sending.send(ground, order):
        tasks[sent.task] = {"task": sent.task, "outcome": "accepted" if sent.accepted else sent.outcome.value}
        if sent.accepted:
            accepted.append(sent.task)
            console.print(sent.task)
        else:
            verdicts.append(Verdict.FAIL if sent.outcome is Kind.REFUSED else Verdict.UNKNOWN)
            complain(f"{sent.task} is {sent.outcome.value}: {sent.reason}")
    if waits:
        verdicts += _answers(console, ground, tasks, accepted, timeout_s)
    if as_json:
        print_json({"verdict": Verdict.worst(verdicts).value, "tasks": list(tasks.values())})
    return Verdict.worst(verdicts).exit_code


def _answers(
    console: Console,
    ground: playground.Playground,
    tasks: dict[str, dict[str, Json]],
    accepted: list[str],
    timeout_s: float,
) -> Iterator[Verdict]:
    """Print the results as they come, and add them to `tasks`; yield a verdict on each task."""
    waiting = set(accepted)
    for answer in sending.answers(ground, accepted, timeout_s):
        waiting.discard(answer.task)
        tasks[answer.task] |= {"status": answer.status, "result": answer.text}
        has_succeeded = answer.status == "SUCCESS"
        style = "green" if has_succeeded else "bold red"
        console.print(
            Text(f"{answer.task}  ").append(answer.status, style).append(f"  {printable(answer.text)}", "default")
        )
        yield Verdict.PASS if has_succeeded else Verdict.FAIL
    if waiting:
        complain(f"{len(waiting)} of {len(accepted)} have not ended: `harness status` shows what runs.")
        yield Verdict.UNKNOWN
