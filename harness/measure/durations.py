"""Durations as text."""

import math
import re

from harness.errors import UsageError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\d{1,12}(?:\.\d+)?")
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d+)?(?:ms|[smh]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smh])")


def parse_duration_s(text: str) -> float:
    """Parse ``500ms``, ``30s``, ``2m``, ``1h30m`` or a plain number of seconds. Raises UsageError.

    Returns:
        Seconds.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is no duration; write it as 30s, 2m, 1h30m or 500ms.")
    return math.fsum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def write_duration(duration_s: float) -> str:
    """Write a duration with three digits, in the unit that suits it: ``4.6 ms``, ``5.43 s``, ``2 h 30 m``."""
    if duration_s < 0.9995:  # noqa: PLR2004 - with three digits, more is 1 s.
        return f"{_three(duration_s * 1000)} ms"
    if duration_s < 60:  # noqa: PLR2004 - seconds in a minute.
        return f"{_three(duration_s)} s"
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (seconds, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def _three(value: float) -> str:
    """Write a number below 1000 with three significant digits."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"  # noqa: PLR2004 - from here on, three digits have no decimals.
