"""Templates in the app's environment: places for what only a running stack knows, such as `{mailbox.host}`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from harness.errors import UsageError
from harness.project.schema import nearest

BROKER_URL = "broker.url"
DATABASE_URL = "database.url"
MAILBOX_HOST = "mailbox.host"
MAILBOX_PORT = "mailbox.port"
_POSTGRESQL = 'a database server; add the setting `services = ["postgresql"]`'
_REDIS = 'a Redis; add the setting `services = ["redis"]`'
KNOWN: Mapping[str, str] = MappingProxyType(
    {
        BROKER_URL: "",
        DATABASE_URL: "",
        MAILBOX_HOST: "",
        MAILBOX_PORT: "",
        **{f"database.{name}": _POSTGRESQL for name in ("host", "port", "name", "user", "password")},
        **{f"redis.{name}": _REDIS for name in ("url", "host", "port", "database", "user", "password")},
    }
)
"""The names that a template may have, and what a stack needs to know them; empty if every stack knows it."""
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<name>[\w .-]*)\}|[{}]")


def check(env: Mapping[str, str], place: str) -> None:
    """Check that all templates have a known name. Raises UsageError.

    Args:
        env: the variables, with templates.
        place: where they were said, for the error.
    """
    for variable, text in env.items():
        for name in templates_in(text, f"{place}.{variable}"):
            if name not in KNOWN:
                raise _unknown(name, f"{place}.{variable}", KNOWN)


def rendered(env: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with each template replaced by its value, and with single braces for doubled ones.

    Args:
        env: the variables, with templates.
        known: what the stack knows, by name, such as `broker.url`.

    Raises:
        UsageError: a template has a name that nobody knows, or that this stack does not know.
    """
    return {variable: _rendered(text, variable, known) for variable, text in env.items()}


def asks_for_mailbox(env: Mapping[str, str]) -> bool:
    """Return whether a template needs a mailbox."""
    asked = {piece["name"] for text in env.values() for piece in _PIECE.finditer(text)}
    return not asked.isdisjoint({MAILBOX_HOST, MAILBOX_PORT})


def escaped(text: str) -> str:
    """Return a text that is rendered to this one."""
    return text.replace("{", "{{").replace("}", "}}")


def templates_in(text: str, place: str) -> Iterator[str]:
    """Yield the name of each template in a text. Raises UsageError for a brace that is neither template nor doubled."""
    for piece in _PIECE.finditer(text):
        if piece["name"] is not None:
            yield piece["name"]
        elif piece[0] in {"{", "}"}:
            # The text is not shown: it may be a secret.
            raise UsageError(
                f"{place} has a single {piece[0]} that belongs to no template: a brace of its own is written twice, "
                f"as {piece[0] * 2}. {_there_are(KNOWN)}"
            )


def _rendered(text: str, variable: str, known: Mapping[str, str]) -> str:
    for name in templates_in(text, variable):
        if name not in known and KNOWN.get(name):
            raise UsageError(f"{variable} asks for {{{name}}}, but this stack lacks {KNOWN[name]}.")
        if name not in known:
            raise _unknown(name, variable, known)
    return _PIECE.sub(lambda piece: piece[0][0] if piece["name"] is None else known[piece["name"]], text)


def _unknown(name: str, place: str, known: Mapping[str, str]) -> UsageError:
    near = nearest(name.strip(), {*KNOWN, *known})
    hint = "" if near is None else f" Did you mean {{{near}}}?"
    return UsageError(
        f"{place} asks for {{{name}}}, which no stack knows.{hint} {_there_are({*KNOWN, *known})} "
        f"A brace of its own is written twice, as {{{{."
    )


def _there_are(names: Iterable[str]) -> str:
    return f"Templates are {', '.join(f'{{{name}}}' for name in sorted(names))}."
