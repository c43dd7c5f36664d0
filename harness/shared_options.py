"""The options that several commands of `harness` share: folders, and settings that the command line overrides."""

import os
from pathlib import Path
from typing import Any

import click

from harness.printable import printable
from harness.project.settings import COMMAND_LINE, Settings, load

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


def settings_of(app_dir: Path | None, **said: object) -> Settings:
    """Return the settings of the project, and what the command line says over them, by key."""
    return load(app_dir or Path()).over(COMMAND_LINE, {"folder": app_dir, **said})
