"""Reading of files with environment variables, one KEY=VALUE in a line, as `.env` files have them."""

import re
from pathlib import Path

from harness.errors import UsageError
from harness.records.regular_file import open_regular

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(?P<value>.*)")
_QUOTED = re.compile(r"""(?:'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def read(path: Path) -> dict[str, str]:
    r"""Return the variables in a file.

    Values are taken as they are: `$NAME` is not replaced. Single quotes keep everything in them, double quotes know
    `\n`, `\t`, `\r` and a backslash before any other character. A comment is a `#` at the begin of a line, or after
    a space.

    Raises:
        UsageError: the file cannot be read, is not UTF-8, or has a line of another form.
    """
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"the env_file {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"the env_file {path} is not UTF-8, in line {at}: save it as UTF-8.") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            name, value = _assignment(stripped, f"{path}, line {number}")
            found[name] = value
    return found


def _assignment(line: str, place: str) -> tuple[str, str]:
    """Return name and value. Raises UsageError, which shows no value: it may be a secret."""
    parsed = _LINE.fullmatch(line)
    if parsed is None or "\0" in line:
        raise UsageError(f"{place} is no variable: write NAME=value, and # before a comment.")
    value = parsed["value"]
    if not value.startswith(("'", '"')):
        return parsed["name"], re.sub(r"(^|\s+)#.*", "", value).rstrip()
    quoted = _QUOTED.fullmatch(value)
    if quoted is None:
        raise UsageError(
            f"{place}: the quotes around the value of {parsed['name']} do not end with the line; write \\n for a line "
            "break in double quotes."
        )
    if quoted["single"] is not None:
        return parsed["name"], quoted["single"]
    return parsed["name"], re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted["double"])
