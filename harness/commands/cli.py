"""The command `harness` and all of its commands.

Exit codes: 0 pass, 1 fail, 2 wrong use or environment, 3 unknown.
"""

from typing import NoReturn

import click

from harness import __version__
from harness.commands import command_exit
from harness.commands.audit import audit_
from harness.commands.clean import clean
from harness.commands.doctor import doctor_
from harness.commands.export import export
from harness.commands.image import image_
from harness.commands.init import init_
from harness.commands.rehearse import rehearse_
from harness.commands.report import report
from harness.commands.run import run
from harness.commands.runs import compare, runs
from harness.commands.selftest import selftest_
from harness.commands.send import send
from harness.commands.shared_options import examples
from harness.commands.survive import survive_
from harness.commands.timelapse import timelapse_
from harness.commands.up import down, status, up


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("harness init", "harness run emails --count 500", "harness survive --quick", "harness runs"),
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Do my tasks survive? Real RabbitMQ, real Celery workers, and every task accounted for."""


def main() -> NoReturn:
    """Run the command `harness`."""
    command_exit.run(cli)


for _command in (
    run,
    init_,
    survive_,
    rehearse_,
    up,
    send,
    down,
    status,
    report,
    selftest_,
    runs,
    compare,
    export,
    audit_,
    timelapse_,
    doctor_,
    image_,
    clean,
):
    cli.add_command(_command)
