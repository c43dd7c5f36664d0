"""The summary page of a GitHub Actions step: where GITHUB_STEP_SUMMARY names a file, Markdown is appended to it."""

import os
from collections.abc import Callable

VARIABLE = "GITHUB_STEP_SUMMARY"
_LARGEST_BYTES = 900_000
"""The most bytes of the file. GitHub refuses the whole page if a step writes more than one MiB."""


def append(text: Callable[[], str], complain: Callable[[str], None]) -> None:
    """Append Markdown to the summary of the step, if there is one. A failure is told, and changes no verdict.

    Args:
        text: makes the Markdown.
        complain: receives what went wrong, in one sentence.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        made = text().encode("utf-8", "backslashreplace")
        # Not the path's size: a pipe or a device has none.
        with open(path, "ab") as file:  # noqa: PTH123 - the path is somebody else's, as it is.
            if file.seekable() and file.tell() + len(made) > _LARGEST_BYTES:
                complain(f"the summary of this step is full: {path} would have more than {_LARGEST_BYTES:,} bytes.")
                return
            file.write(made)
    except Exception as error:  # noqa: BLE001 - the verdict stands, whatever its summary meets.
        complain(f"the summary of this step cannot be written to {path}: {error}.")
