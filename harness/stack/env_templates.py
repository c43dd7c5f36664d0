"""Templates in the app's environment: `{mailbox.host}` and others stand for what only a running stack knows."""

import re
from collections.abc import Mapping

from harness.errors import UsageError

MAILBOX_HOST = "mailbox.host"
MAILBOX_PORT = "mailbox.port"
BROKER_URL = "broker.url"
DATABASE_URL = "database.url"
NAMES = (MAILBOX_HOST, MAILBOX_PORT, BROKER_URL, DATABASE_URL)
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<name>[\w .-]*)\}|[{}]")


def rendered(env: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with each template replaced by its value, and each doubled brace by a single one.

    Args:
        env: the variables.
        known: the values, by name.

    Raises:
        UsageError: a template has an unknown name, or a brace is neither doubled nor a template's.
    """
    return {variable: _rendered(variable, text, known) for variable, text in env.items()}


def asks_for_mailbox(env: Mapping[str, str]) -> bool:
    """Return whether a template needs a mailbox."""
    asked = {piece["name"] for text in env.values() for piece in _PIECE.finditer(text)}
    return not asked.isdisjoint({MAILBOX_HOST, MAILBOX_PORT})


def _rendered(variable: str, text: str, known: Mapping[str, str]) -> str:
    def value(piece: re.Match[str]) -> str:
        if piece[0] in {"{{", "}}"}:
            return piece[0][0]
        if piece["name"] in known:
            return known[piece["name"]]
        # The text is not shown: it may be a secret.
        raise UsageError(
            f"the variable {variable} has {piece[0]}, which is no template: there are "
            f"{', '.join(f'{{{name}}}' for name in NAMES)}. Write a brace of its own twice: {{{{ or }}}}."
        )

    return _PIECE.sub(value, text)
