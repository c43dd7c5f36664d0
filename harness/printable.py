"""Text that others wrote, as a person may be shown it."""

import re

# Without them no text can move the cursor, change a colour or a title, or turn the direction of what stands beside it.
# Those that join letters and emoji stay.
_UNSEEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_LINES = re.compile(f"[{_UNSEEN}]")
_ONE_LINE = re.compile(rf"[{_UNSEEN}\t\n]")


def printable(text: str) -> str:
    """`text` with what would not be seen as a letter written as Python writes it; lines and tabs stay."""
    return _LINES.sub(_escape, text)


def printable_name(text: str) -> str:
    """The same for what has to be one line, such as a name or an id."""
    return _ONE_LINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    # As it would stand in a literal, without the quotes.
    return ascii(found[0])[1:-1]
