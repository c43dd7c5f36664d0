"""Records as JSON objects and back: each field is read by its type, and what does not fit is named."""

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, Self

from harness.errors import RecordError
from harness.records.values import Json

DAMAGED = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)
"""What the `from_json` of a damaged record raises; the first for a number that is infinite."""
_SHOWN = 200
"""The most characters of a value that an error shows."""
LEFT_OUT = types.MappingProxyType({"left out": True})
"""The metadata of a field that is no member of the JSON object if it is None."""

Read = Callable[[Json], Any]
"""Converts a JSON value to a field's value. Raises _MisfitError."""


def seen(value: object) -> str:
    """Return a value as an error shows it, in one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The base of dataclasses that are JSON objects, with one member for each field.

    A field's type is made of: None, bool, int, float, str, bytes (where the carrier takes them), `Json`, a path, an
    enumeration of texts, tuples, mappings, and classes with `to_json` and `from_json`.
    """

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object; `from_json` reads it back."""
        members = {one: getattr(self, one.name) for one in fields(self)}
        return {
            one.name: _written(value) for one, value in members.items() if value is not None or one.metadata != LEFT_OUT
        }

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Return the record in a JSON object. Members that the record does not know are ignored.

        Raises:
            RecordError: the value is no object, or a member is missing or of another type.
        """
        if not isinstance(value, Mapping):
            raise RecordError(f"{cls.__name__} should be an object, and is {seen(value)}.")
        given: dict[str, Any] = {}
        kind: type = cls
        for name, read, is_required in _members(kind):
            if name in value:
                try:
                    given[name] = read(value[name])
                except _MisfitError as misfit:
                    raise RecordError(f"`{name}` of {cls.__name__} should be {misfit}.") from misfit
            elif is_required:
                raise RecordError(f"{cls.__name__} has no `{name}`: {seen(value)}.")
        return cls(**given)


class _MisfitError(ValueError):
    """A value is not of the type that it should be. The message names the type and shows the value."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"{expected}, and is {seen(value)}")


def _written(value: Any) -> Json:
    if value is None or isinstance(value, str | int | float | bytes):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {_written(name): _written(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_written(one) for one in value]
    return str(value) if isinstance(value, Path) else value.to_json()


@functools.cache
def _members(cls: type[Record]) -> tuple[tuple[str, Read, bool], ...]:
    """Return, for each field: its name, its reader, and True if it is required."""
    hints = typing.get_type_hints(cls)
    return tuple(
        (one.name, _reader(hints[one.name]), one.default is MISSING and one.default_factory is MISSING)
        for one in fields(cls)
    )


def _reader(hint: Any) -> Read:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        (inner,) = (one for one in args if one is not types.NoneType)
        return _optional(_reader(inner))
    if origin is tuple:
        return _many(args[0]) if args[-1] is Ellipsis else _fixed([_reader(one) for one in args])
    if origin is not None:
        return _mapping(*map(_reader, args))
    return _reader_of_one(hint)


def _reader_of_one(hint: Any) -> Read:
    """Return the reader of a type that contains no other types."""
    if hint is Any:
        return lambda value: value
    if hint in _PLAIN:
        return _plain(hint)
    if issubclass(hint, Enum):
        return _converted(hint, f"one of {', '.join(one.value for one in hint)}")
    return _converted(Path, "a path") if hint is Path else _object(hint)


_PLAIN: Mapping[type, tuple[str, frozenset[type]]] = {
    bool: ("true or false", frozenset({bool})),
    int: ("a whole number", frozenset({int})),
    float: ("a number", frozenset({int, float})),
    str: ("a text", frozenset({str})),
    bytes: ("bytes", frozenset({bytes})),
}
"""Per type, its name in an error, and the accepted types of values. A bool is no number here."""


def _plain(kind: type) -> Read:
    expected, kinds = _PLAIN[kind]

    def read(value: Json) -> Any:
        if type(value) not in kinds:
            raise _MisfitError(expected, value)
        return value

    return read


def _optional(inner: Read) -> Read:
    return lambda value: None if value is None else inner(value)


def _many(hint: Any) -> Read:
    inner = _reader(hint)
    kinds = _PLAIN[hint][1] if hint in _PLAIN else frozenset[type]()

    def read(value: Json) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise _MisfitError("a list", value)
        # A load process reads thousands of numbers at once, and sends nothing meanwhile.
        return tuple(value) if kinds.issuperset(map(type, value)) else tuple(map(inner, value))

    return read


def _fixed(inner: list[Read]) -> Read:
    def read(value: Json) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            raise _MisfitError(f"a list of {len(inner)}", value)
        return tuple(one(part) for one, part in zip(inner, value, strict=True))

    return read


def _mapping(name: Read, inner: Read) -> Read:
    def read(value: Json) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise _MisfitError("an object", value)
        return {name(key): inner(one) for key, one in value.items()}

    return read


def _converted(convert: Callable[[str], Any], expected: str) -> Read:
    def read(value: Json) -> Any:
        if not isinstance(value, str):
            raise _MisfitError(expected, value)
        try:
            return convert(value)
        except ValueError as error:
            raise _MisfitError(expected, value) from error

    return read


def _object(kind: Any) -> Read:
    def read(value: Json) -> Any:
        try:
            return kind.from_json(value)
        # A class that is no Record may raise any of these errors.
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _MisfitError(f"of {kind.__name__}", value) from error

    return read
