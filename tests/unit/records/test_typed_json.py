"""Records as JSON: what is written is read back, and what does not fit is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RecordError
from harness.records.typed_json import LEFT_OUT, Record
from harness.records.values import Json


class Colour(StrEnum):
    """A text that is one of a few."""

    RED = "red"
    BLUE = "blue"


class Own:
    """What is no record, and has its own form."""

    def to_json(self) -> Json:
        return {"own": True}

    @classmethod
    def from_json(cls, value: Json) -> "Own":
        if not value["own"]:
            raise ValueError("not its own")
        return cls()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own)

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Inner(Record):
    """A record in another."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Outer(Record):
    """A record with a field of every type."""

    yes: bool = True
    whole: int = 1
    number: float = 1.5
    text: str = "text"
    maybe: float | None = None
    absent: str | None = field(default=None, metadata=LEFT_OUT)
    numbers: tuple[float, ...] = (1.0, 2)
    pair: tuple[str, int] = ("one", 1)
    by_name: Mapping[Colour, tuple[int, ...]] = field(default_factory=lambda: {Colour.BLUE: (1, 2)})
    colour: Colour = Colour.RED
    path: Path = Path("here")
    anything: Json = None
    inner: Inner = Inner(number=1)
    inners: tuple[Inner, ...] = (Inner(number=2),)
    own: Own = field(default_factory=Own)


@pytest.mark.parametrize("one", [Outer(), Outer(maybe=2.0, absent="there", numbers=(), anything=[{"a": None}])])
def test_what_is_written_is_read_back(one: Outer) -> None:
    assert Outer.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


def test_what_is_left_out_is_no_member_and_what_is_none_is_null() -> None:
    members = Outer().to_json()
    assert "absent" not in members
    assert members["maybe"] is None
    assert members["by_name"] == {"blue": [1, 2]}


def test_a_member_that_nobody_knows_is_passed_over_and_one_with_a_default_may_be_missing() -> None:
    assert Outer.from_json({"new": 1}) == Outer()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "Outer should be an object, and is []."),
        ({"yes": 1}, "`yes` of Outer should be true or false, and is 1."),
        ({"whole": True}, "`whole` of Outer should be a whole number, and is True."),
        ({"whole": 1.5}, "`whole` of Outer should be a whole number, and is 1.5."),
        ({"number": "1"}, "`number` of Outer should be a number, and is '1'."),
        ({"text": None}, "`text` of Outer should be a text, and is None."),
        ({"numbers": 1}, "`numbers` of Outer should be a list, and is 1."),
        ({"numbers": [1, "2"]}, "`numbers` of Outer should be a number, and is '2'."),
        ({"pair": ["one"]}, "`pair` of Outer should be a list of 2, and is ['one']."),
        ({"by_name": []}, "`by_name` of Outer should be an object, and is []."),
        ({"by_name": {"green": []}}, "`by_name` of Outer should be one of red, blue, and is 'green'."),
        ({"colour": 1}, "`colour` of Outer should be one of red, blue, and is 1."),
        ({"path": 1}, "`path` of Outer should be a path, and is 1."),
        ({"inner": {}}, "Inner has no `number`: {}."),
        ({"inners": [{"number": None}]}, "`number` of Inner should be a whole number, and is None."),
        ({"own": {"own": False}}, "`own` of Outer should be of Own, and is {'own': False}."),
        ({"own": None}, "`own` of Outer should be of Own, and is None."),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_seen(wrong: Any, said: str) -> None:
    with pytest.raises(RecordError) as raised:
        Outer.from_json(wrong)
    assert str(raised.value) == said


def test_of_a_long_value_the_beginning_is_shown() -> None:
    with pytest.raises(RecordError) as raised:
        Outer.from_json({"whole": "x" * 1000})
    assert str(raised.value).endswith("xxx….")
    assert len(str(raised.value)) < 300
