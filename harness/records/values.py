"""JSON values: equality and a digest. Runs in every container: standard library only.

Python treats 1 and 1.0 as equal, and so does an expectation. Python also treats True and 1 as equal; an expectation
does not.
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
    """Parse JSON text so that equal numbers become the same value.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_float=_number, parse_int=_whole)


def digest(text: str | bytes) -> str:
    """Return the SHA-256 of a JSON text's value: equal values have equal digests.

    Raises:
        ValueError: it is not JSON.
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
    """Write the lone surrogates of a value as backslash escapes: JSON allows them, UTF-8 does not."""
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
        # Python refuses to parse or write an integer of more than some thousand digits, so none of these can be an
        # expected result.
        return math.nan
