"""Nothing that others wrote reaches a terminal as anything but text."""

import sys
import unicodedata

import pytest

from harness.printable import printable, printable_name, without_secret

HARMLESS = ["Zoë", "注文", "👩\u200d💻", "ක්\u200dෂ", "a [b] {c} \\x1b", "e\u0301"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("pass\rfail", r"pass\rfail"),
        ("a\x00b\x7f\x08", r"a\x00b\x7f\x08"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("name\udcff", r"name\udcff"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == printable_name(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable_name(text) == text


def test_lines_and_tabs_stay_but_in_a_name() -> None:
    assert printable("one\n\ttwo") == "one\n\ttwo"
    assert printable_name("one\n\ttwo") == r"one\n\ttwo"


def test_no_control_character_of_unicode_is_forgotten() -> None:
    forgotten = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        if printable_name(character) == character
    ]
    assert forgotten == []


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("redis_password=hush", "redis_password=***"),
        ("task_acks_late=true", "task_acks_late=true"),
        ("--broker-url=amqp://me:hush@broker:5672/shop", "--broker-url=amqp://me:***@broker:5672/shop"),
        ("amqp://me:hush@broker/", "amqp://me:***@broker/"),
        ("amqp://broker:5672/", "amqp://broker:5672/"),
        ('["ada@shop.example"]', '["ada@shop.example"]'),
        ("emails", "emails"),
    ],
)
def test_a_secret_of_a_command_line_is_not_shown(argument: str, shown: str) -> None:
    assert without_secret(argument) == shown
