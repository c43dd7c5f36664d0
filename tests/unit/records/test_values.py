"""JSON values: which of them are equal."""

from typing import Any

import pytest

from harness.records import values


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (None, None, True),
        ("1", 1, False),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": True}, {"a": 1}, False),
        ({}, [], False),
        ({"a": 1}, 1, False),
        (1, {"a": 1}, False),
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 3], False),
        ([1], [1, 2], False),
        ([True], [1], False),
        ([1], 1, False),
        (1, [1], False),
    ],
)
def test_two_values_are_equal_or_not(*, one: Any, other: Any, equal: bool) -> None:
    assert values.same(one, other) is equal


def test_equal_texts_have_equal_digests_however_they_are_written() -> None:
    assert values.digest('{"a": 1.0, "b": "\\u00fc"}') == values.digest(b'{"b":"\xc3\xbc","a":1}')
    assert values.digest("1") != values.digest("true")
    assert values.digest("1.5") != values.digest("1")


def test_a_number_is_read_so_that_equal_ones_are_written_alike() -> None:
    assert repr(values.loads("[1.0, 1.5, 2, 1e3]")) == "[1, 1.5, 2, 1000]"
    # Python reads none that is as long, and nothing is equal to it.
    (number,) = values.loads(f"[{'9' * 10_000}]")
    assert number != number  # noqa: PLR0124 - so it is with what is no number.


def test_lone_surrogates_are_escaped_wherever_they_stand() -> None:
    assert values.readable({"\ud800": ["a\udfff", 1, None, {"b": "ü"}]}) == {
        "\\ud800": ["a\\udfff", 1, None, {"b": "ü"}]
    }
