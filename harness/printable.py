"""Text from other programs, for display: escaped, and without secrets."""

import re

# Without these characters, no text can move the cursor, change a colour or a title, or reverse the text next to it.
# Characters that join letters and emoji stay.
_UNSEEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_LINES = re.compile(f"[{_UNSEEN}]")
_SECRET = ("password", "secret", "key", "credential", "token", "url", "backend")
_PASSWORD = re.compile(r"(://[^:/@\s]*:)\S*(?=@)|([?&]password=)[^&\s'\"]*")
"""Matches in a URL up to the last @, because a password may contain one too; or a password given as an option."""
HIDDEN = "***"
"""What stands in the place of a secret."""
_ONE_LINE = re.compile(rf"[{_UNSEEN}\t\n]")


def printable(text: str) -> str:
    """Escape characters without a visible form as in a Python literal; line breaks and tabs stay."""
    return _LINES.sub(_escape, text)


def printable_name(text: str) -> str:
    """Escape line breaks and tabs too, for text that must be one line, such as a name or an id."""
    return _ONE_LINE.sub(_escape, text)


def is_secret(name: str) -> bool:
    """Return whether the name of a setting tells that its value may be a secret."""
    return any(word in name.lower() for word in _SECRET)


def without_passwords(text: str) -> str:
    """Return a text with the password hidden in every URL within it."""
    return _PASSWORD.sub(rf"\1\2{HIDDEN}", text)


def without_secret(argument: str) -> str:
    """Return an argument of a command line without the password of a URL, and without the value of a secret setting."""
    shown = without_passwords(argument)
    name, separator, value = shown.partition("=")
    return f"{name}={HIDDEN}" if separator and is_secret(name) and "://" not in value else shown


def _escape(found: re.Match[str]) -> str:
    # As in a literal, without the quotes.
    return ascii(found[0])[1:-1]
