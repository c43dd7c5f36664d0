"""The pages of the reference that are made of the code: commands, pytest's fixtures, the Python API, the journal.

They are written each time that the site is built, so that none of them can be out of date.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

import harness
from harness import plugin
from harness.commands.cli import cli
from harness.records import event

WIDTH = 100
_STACK = (
    "producer",
    "settle",
    "ledger",
    "app",
    "hold",
    "inject",
    "add_worker",
    "add_beat",
    "add_web",
    "broker",
    "login",
    "mailbox",
    "results",
    "look",
    "logs",
)
BEHIND_FIXTURES: Mapping[str, tuple[str, ...]] = {
    "harness.stack.Stack": _STACK,
    "harness.producer.Producer": ("send", "at"),
    "harness.producer.Sent": ("accepted",),
    "harness.audit.ledger.Ledger": ("sent", "ended", "started", "open", "retries", "starts", "holder", "has_ended"),
    "harness.containers.worker.Worker": ("kill", "pause", "unpause", "stop", "restart", "last_lines"),
    "harness.containers.mailbox.Mailbox": ("answer", "withdraw", "clear", "messages", "answered"),
    "harness.containers.mailbox.Mail": ("parsed",),
    "harness.audit.results.Results": ("row", "rows", "count", "groups"),
}
"""What a test has in its hands, and those members of each that are for tests."""
FUNCTIONS = ("harness.wait.wait_until",)


# ------------------------------------------------------------------------------------------------------ commands


def commands() -> str:
    """Return the page of the command `harness`: each command with its arguments, options and examples."""
    text = ["# Commands", "", "What `harness --help` and the help of each command say.", ""]
    root = click.Context(cli, info_name="harness", **cli.context_settings)
    text += _command(cli, root)
    for name, command in cli.every().items():
        text += _command(command, click.Context(command, info_name=name, parent=root, **cli.context_settings))
    return "\n".join(text)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from (f"## {context.command_path}", "")
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    yield from ("```text", usage, "```", "")
    # click wraps the paragraphs of a docstring, and so does a browser.
    yield from (escaped(inspect.cleandoc(command.help or "")), "")
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    # Arguments without a help of their own are in the usage, and described above.
    yield from _table(("option", "does"), [(f"`{name}`", escaped(does)) for name, does in records if does])
    if isinstance(command, click.Group):
        said = {name: one.get_short_help_str(WIDTH) for name, one in sorted(command.commands.items())}
        anchors = {name: f"[`{name}`](#{context.command_path}-{name})" for name in said}
        yield from _table(("command", "does"), [(anchors[name], escaped(text)) for name, text in said.items()])
    lines = [line.strip() for line in (command.epilog or "").partition("Examples:\n")[2].splitlines() if line.strip()]
    if lines:
        yield from ("```console", *(f"$ {line}" for line in lines), "```", "")


# -------------------------------------------------------------------------------------------------------- pytest


def pytest_door() -> str:
    """Return the page of the pytest plugin: its fixtures and its marker."""
    text = ["# pytest: fixtures and marker", "", "The plugin is there as soon as the harness is installed.", ""]
    text += ["## Fixtures", ""]
    for name, (kind, said) in fixtures().items():
        text += [f"### {name}", "", f"`{kind}`", "", said, ""]
    signature, _, said = plugin.MARKER.partition(": ")
    said = said[0].upper() + said[1:]
    # First what it is for, then each argument.
    parts = re.split(r"; (?=\w+: )|(?<=settings\.) (?=app: )", said)
    text += ["## The marker stack", "", "```text", f"@pytest.mark.{signature}", "```", ""]
    text += [f"{'- ' if index else ''}{escaped(part)}{'' if index else chr(10)}" for index, part in enumerate(parts)]
    return "\n".join([*text, "", "[How to use them](../docs/scenarios.md#a-test)", ""])


def fixtures() -> dict[str, tuple[str, str]]:
    """Return each public fixture of the plugin by its name, with its type and its docstring."""
    found = {}
    for node in ast.parse(inspect.getsource(plugin)).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if any(ast.unparse(one).startswith("pytest.fixture") for one in node.decorator_list):
            kind = ast.unparse(node.returns) if node.returns else ""
            kind = re.sub(r"^Iterator\[(.+)\]$", r"\1", kind)
            found[node.name] = (kind, inspect.cleandoc(ast.get_docstring(node) or ""))
    return found


# ----------------------------------------------------------------------------------------------------- Python API


def api() -> str:
    """Return the page of the Python API. Sphinx puts the docstrings in place."""
    text = ["# Python API", "", "## harness", "", "For scenarios and tests. None of it needs an engine.", ""]
    for name in sorted(harness.__all__):
        text += _documented(f"harness.{name}", getattr(harness, name), ())
    text += ["## What fixtures give", "", "Members that no test needs are left out.", ""]
    for name, members in BEHIND_FIXTURES.items():
        text += _documented(name, type, members)
    text += ["## Waiting", ""]
    for name in FUNCTIONS:
        text += _documented(name, None, ())
    return "\n".join(text)


def _documented(name: str, what: Any, members: Sequence[str]) -> list[str]:
    """Return the directive that documents a class with its members, all unless some are named, or a function."""
    lines = ["```{eval-rst}", f".. auto{'class' if isinstance(what, type) else 'function'}:: {name}"]
    if isinstance(what, type):
        lines += [f"   :members:{' ' if members else ''}{', '.join(members)}"]
        lines += (
            ["   :inherited-members:"] if members else ["   :undoc-members:", "   :exclude-members: to_json, from_json"]
        )
    return [*lines, "```", ""]


# -------------------------------------------------------------------------------------------------------- journal


def journal() -> str:
    """Return the page of the journal: what each line has, and the members of each kind of line."""
    text = [
        "# The lines of a journal",
        "",
        "A file of `journal/` in [the run folder](../docs/accounting.md#the-run-folder) ",
    ]
    text[-1] += "has one JSON object in each line. Each has `n`, `t`, `kind` and, if it is about a task, `task`."
    text += [
        "",
        "```json",
        '{"n":0,"t":1795366773.25,"kind":"opened","node":"worker-1","pid":7,"role":"worker","format":1}',
    ]
    text += ["```", "", *_table(("member", "means"), [(f"`{name}`", said) for name, said in _common().items()])]
    kinds: dict[type, list[str]] = {}
    for kind, line in event.LINES.items():
        kinds.setdefault(line, []).append(kind.value)
    for line, names in kinds.items():
        text += [f"## {', '.join(names)}", "", inspect.cleandoc(line.__doc__ or ""), ""]
        text += _table(
            ("member", "type", "means"), [(f"`{one}`", f"`{kind}`", said) for one, kind, said in members(line)]
        )
    return "\n".join(text)


def _common() -> dict[str, str]:
    said = {name: text for name, _, text in members(event.Event)}
    return {
        "n": said["n"],
        "t": said["t"],
        "kind": "What happened: one of the headings below.",
        "task": "The id of the task that the line is about; left out if it is about none.",
    }


def members(line: type) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the type and the docstring of each member that a class and its bases declare."""
    (defined,) = ast.parse(inspect.getsource(line)).body
    if not isinstance(defined, ast.ClassDef):
        raise TypeError(f"{line} is no class.")
    # A TypedDict itself does not know what it was based on.
    for base in defined.bases:
        if ast.unparse(base) != "TypedDict":
            yield from members(getattr(sys.modules[line.__module__], ast.unparse(base)))
    for node, after in zip(defined.body, [*defined.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            docstring = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                docstring = " ".join(inspect.cleandoc(str(after.value.value)).split())
            yield node.target.id, ast.unparse(node.annotation), docstring


# ------------------------------------------------------------------------------------------------------ Markdown


def escaped(text: str) -> str:
    """Return plain text as Markdown that shows it; what is in backquotes stays."""
    return "".join(
        part if index % 2 else re.sub(r"([\\*_\[\]<>{}|#$])", r"\\\1", part)
        for index, part in enumerate(re.split(r"(`[^`]*`)", text))
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table, and an empty line after it; nothing if it has no rows."""
    if not rows:
        return
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        cells = [re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""
