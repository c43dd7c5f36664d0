"""The last words of a worker that did not start, read for the variable or the package that it lacks."""

import re

_MISSING_VARIABLE = (
    # os.environ["X"]; the frame of `os` tells it from the key of another dictionary.
    re.compile(r"(?:environ|<frozen os>|/os\.py).*KeyError: '([A-Z][A-Z0-9_]*)'", re.DOTALL),
    re.compile(r"Set the ([A-Z][A-Z0-9_]*) environment variable"),
    re.compile(r"UndefinedValueError: ([A-Z][A-Z0-9_]*) not found"),
    re.compile(r"environment variable \"?'?([A-Z][A-Z0-9_]*)\"?'? not set", re.IGNORECASE),
)
_MISSING_FIELD = re.compile(r"^([A-Za-z]\w*)\n\s+Field required", re.MULTILINE)
"""As pydantic shows it, a field of a class of settings on a line of its own."""
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


def missing_variables(said: str) -> tuple[str, ...]:
    """Return the environment variables that a worker asked for in vain, by the end of its log."""
    found = [match[1] for pattern in _MISSING_VARIABLE for match in pattern.finditer(said)]
    found += [match[1].upper() for match in _MISSING_FIELD.finditer(said)]
    return tuple(dict.fromkeys(found))


def missing_module(said: str) -> str | None:
    """Return the module that a worker could not import, by the end of its log; None if it is not about that."""
    found = _MISSING_MODULE.findall(said)
    return found[-1] if found else None
