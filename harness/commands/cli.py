"""The command `harness` and all of its commands.

Exit codes: 0 pass, 1 fail, 2 wrong use or environment, 3 unknown.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, NoReturn

import click

from harness import __version__
from harness.commands import command_exit
from harness.commands.shared_options import examples

PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "run:run",
        "init": "init:init_",
        "survive": "survive:survive_",
        "rehearse": "rehearse:rehearse_",
        "up": "up:up",
        "send": "send:send",
        "down": "up:down",
        "status": "up:status",
        "report": "report:report",
        "selftest": "selftest:selftest_",
        "runs": "runs:runs",
        "compare": "runs:compare",
        "export": "export:export",
        "audit": "audit:audit_",
        "timelapse": "timelapse:timelapse_",
        "doctor": "doctor:doctor_",
        "image": "image:image_",
        "clean": "clean:clean",
    }
)
"""The commands by name, each as module and function of this folder."""


class Commands(click.Group):
    """A group that imports the module of a command when it is asked for it: all of them would take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the alphabet's order."""
        return sorted({*PLACES, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of that name."""
        if cmd_name in PLACES and cmd_name not in self.commands:
            module, _, function = PLACES[cmd_name].partition(":")
            self.add_command(getattr(import_module(f"{__package__}.{module}"), function), cmd_name)
        return super().get_command(ctx, cmd_name)

    def every(self) -> dict[str, click.Command]:
        """Return all commands by name."""
        with click.Context(self) as ctx:
            found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {name: command for name, command in found.items() if command is not None}


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("harness init", "harness run emails --count 500", "harness survive --quick", "harness runs"),
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Do my tasks survive? Real RabbitMQ, real Celery workers, and every task accounted for."""


def main() -> NoReturn:
    """Run the command `harness`."""
    command_exit.run(cli)
