"""JSON values: whether two are equal, and a digest of one. Standard library alone; it runs in every container.

Python counts 1 and 1.0 as equal, and so does everybody who expects one of them; it also counts True and 1 as equal,
and to whoever expects one of those they are not.
"""

import hashlib
import json
import math
import re
from typing import Any

Json = Any
"""A value that `json.dumps` writes: None, bool, int, float, str, and lists and string-keyed dicts of these."""

_LONE = re.compile("[\ud800-\udfff]")


def loads(text: str | bytes) -> Json:
    """Read JSON text so that equal numbers are written alike.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_float=_number, parse_int=_whole)


def digest(text: str | bytes) -> str:
    """Return a digest of the value of a JSON text: equal values have equal digests.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deep.
    """
    canonical = json.dumps(loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def same(one: Json, other: Json) -> bool:
    """Tell whether two JSON values are equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def readable(value: Json) -> Json:
    """Write the lone surrogates of a value as backslash escapes: they are legal in JSON, and no text in UTF-8."""
    if isinstance(value, str):
        return _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    if isinstance(value, list):
        return [readable(one) for one in value]
    if isinstance(value, dict):
        return {readable(key): readable(one) for key, one in value.items()}
    return value


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _whole(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        # Python reads no whole number of more than some thousand digits. It writes none either, so that nobody can
        # have expected this one.
        return math.nan
