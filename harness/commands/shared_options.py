"""The options that several commands of `harness` share: folders, and settings that the command line overrides.

There are two kinds of settings: those of a project in the harness, and those of Celery in the app.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from harness.audit.run_folder import RUNS
from harness.printable import printable
from harness.project.settings import COMMAND_LINE, Settings, load
from harness.records.values import Json

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any] | click.Command)
DEFAULT_FOLDER = "[default: the settings', or here]"
"""The default of an option for the app's folder, as its help shows it."""


class _Folder(click.Path):
    """A folder. A name that is not UTF-8 is refused: no container can see it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click.BadParameter."""
        try:
            os.fspath(value).encode()
        except UnicodeEncodeError:
            self.fail(f"the name of the folder {printable(os.fspath(value))} is no UTF-8: rename it.", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Folder(path_type=Path)
"""The type of an option or argument that is a folder."""

JUNIT = click.option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the checks of the run as JUnit XML, for CI systems.",
)
"""The option for a JUnit file. What is not known is an error there."""

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs to read.")
"""The option for JSON on standard output; what people read is then on standard error."""


def runs_option(text: str) -> Callable[[_Decorated], _Decorated]:
    """Return the option for the folder of the run folders. `text` is its help."""
    return click.option("--runs", "root", type=FOLDER, default=RUNS, show_default=True, help=text)


def examples(*lines: str) -> str:
    """Return command lines as the end of a command's help. Each is one that can be given as it stands."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def print_json(value: Json) -> None:
    """Print one JSON object on standard output, with a number for its format."""
    sys.stdout.write(json.dumps({"format": 1, **value}, indent=2) + "\n")


def settings_of(app_dir: Path | None, **said: object) -> Settings:
    """Return the settings of the project, and what the command line says over them, by key."""
    return load(app_dir or Path()).over(COMMAND_LINE, {"folder": app_dir, **said})


class _CelerySetting(click.ParamType[tuple[str, Json]]):
    """A setting of Celery as NAME=VALUE. The value is YAML, of which JSON is a part: `true`, `quorum`, `{"a": 1}`."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Json]:
        """Return name and value. Raises click.BadParameter."""
        name, separator, text = str(value).partition("=")
        if not separator or not name.isidentifier():
            self.fail(f"{printable(str(value))} is not NAME=VALUE, such as task_acks_late=true.", param, ctx)
        try:
            said: Json = yaml.safe_load(text)
            # A date, for one, is no value that can be handed over.
            json.dumps(said)
        except (yaml.YAMLError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            self.fail(f"the value in {printable(str(value))} cannot be read: {printable(reason)}", param, ctx)
        return name, said


SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    type=_CelerySetting(),
    metavar="NAME=VALUE",
    help="A setting of Celery that overrides the app's own, such as task_acks_late=true; repeatable.",
)
"""The option `--set`; its parameter is `overrides`, pairs of name and value."""
