"""Poetry's own way to write versions, such as `^5.2`, in the words of the packaging standards."""

import re

from packaging.specifiers import SpecifierSet

_PART = re.compile(r"(?P<sign>\^|~=|~|==|!=|<=|>=|<|>|=)?\s*(?P<version>[0-9A-Za-z*][0-9A-Za-z.*+!_-]*)")


def specifiers(constraint: str) -> list[SpecifierSet]:
    """Return what a constraint allows: a version that is in one of the sets.

    Raises:
        ValueError: it is no constraint; the message shows it.
    """
    if not isinstance(constraint, str):
        raise TypeError(f"{constraint!r} is no constraint of a version")
    return [_all_of(part, constraint) for part in re.split(r"\|\|?", constraint)]


def _all_of(part: str, constraint: str) -> SpecifierSet:
    rest = _PART.sub("", part).replace(",", "").strip()
    if rest or not part.strip():
        raise ValueError(f"{constraint!r} is no constraint of a version")
    try:
        parts = [_one(found["sign"] or "", found["version"]) for found in _PART.finditer(part)]
        return SpecifierSet(",".join(filter(None, parts)))
    except ValueError:
        raise ValueError(f"{constraint!r} is no constraint of a version") from None


def _one(sign: str, version: str) -> str:
    if version == "*":
        return ""
    if sign == "^":
        return f">={version},<{_after(version, _caret_place(version))}"
    if sign == "~":
        return f">={version},<{_after(version, min(1, version.count('.')))}"
    return f"{'==' if sign in {'', '='} else sign}{version}"


def _caret_place(version: str) -> int:
    """Return the place of the first number that is not zero, or of the last one."""
    numbers = _numbers(version)
    return next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)


def _after(version: str, place: int) -> str:
    """Return the first version in which the number at `place` is one higher."""
    numbers = _numbers(version)[: place + 1]
    return ".".join(map(str, [*numbers[:-1], numbers[-1] + 1]))


def _numbers(version: str) -> list[int]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    if found is None:
        raise ValueError(f"{version!r} is no version")
    return [int(number) for number in found[0].split(".")]
