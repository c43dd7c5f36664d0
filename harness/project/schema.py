"""The keys of the settings: what each may hold, and how it is read from TOML or from an environment variable."""

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from harness.project.needs import EffectQuery, Mount, Network, ResultsIn, Service
from harness.records.typed_json import seen

Read = Callable[[object, Path], object]
"""Converts a value to that of a setting. Relative paths are relative to the folder. Raises MisfitError."""
Split = Callable[[str], object]
"""Converts the text of an environment variable to the value that a file would hold. Raises ValueError."""


Writable = bool | tuple[str, ...]
"""True if nodes may write to the app's whole folder; or the paths in it that they may write to."""
Dependency = str | Path
"""A requirement such as `redis>=5`, or a file that lists requirements."""


class MisfitError(ValueError):
    """A value does not fit its key. The message says what was seen and what should be there."""

    def __init__(self, expected: str, value: object, at: str = "") -> None:
        """Take what was expected, and the value; `at` is its place below the key, such as `[0]`."""
        self.expected, self.value, self.at = expected, value, at
        super().__init__(f"is {_shown(value)}; it should be {expected}")


def _shown(value: object) -> str:
    """Return a value as an error shows it, with the kind of it in words."""
    text = str(value).lower() if isinstance(value, bool) else seen(value)
    kind = next((words for kinds, words in _KINDS if isinstance(value, kinds)), "something else")
    return f"{text}, {kind}"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a truth value"),
    (str, "a text"),
    (int, "a whole number"),
    (float, "a number"),
    (Mapping, "a table"),
    ((list, tuple), "a list"),
    ((date, time), "a date or time"),
)

# ---------------------------------------------------------------------------------------------------- from TOML


def _text(value: object, _folder: Path) -> str:
    if not isinstance(value, str):
        raise MisfitError("a text", value)
    if not value.strip() or "\0" in value:
        raise MisfitError("a text that is not empty and has no NUL", value)
    return value


def _matching(pattern: str, expected: str) -> Read:
    def read(value: object, _folder: Path) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise MisfitError(expected, value)
        return value

    return read


def _count(value: object, _folder: Path) -> int:
    if type(value) is not int or value < 0:
        raise MisfitError("a whole number, 0 or more", value)
    return value


def _path(value: object, folder: Path) -> Path:
    # The marker and the command line may hold a path.
    return folder / (value if isinstance(value, Path) else _text(value, folder))


def _import_folder(value: object, folder: Path) -> Path:
    if ":" in _text(value, folder):
        raise MisfitError("the path of one folder, without a colon: PYTHONPATH separates folders by it", value)
    return _path(value, folder)


def _list(one: Read, of: str) -> Read:
    def read(value: object, folder: Path) -> tuple[object, ...]:
        if not isinstance(value, list | tuple):
            raise MisfitError(f"a list of {of}", value)
        return tuple(_part(one, part, folder, f"[{number}]") for number, part in enumerate(value))

    return read


def _part(one: Read, value: object, folder: Path, at: str) -> object:
    """Read a part of a value; an error names its place."""
    try:
        return one(value, folder)
    except MisfitError as misfit:
        raise MisfitError(misfit.expected, misfit.value, at + misfit.at) from None


def _environment(value: object, folder: Path) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise MisfitError("a table of texts", value)
    for name in value:
        if not isinstance(name, str) or not name or {"=", "\0"} & set(name):
            raise MisfitError("a table whose keys are names of environment variables", name, at=" has a key that")
    return {name: str(_part(_value, part, folder, f".{name}")) for name, part in value.items()}


def _value(value: object, _folder: Path) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise MisfitError("a text (put numbers in quotes)", value)
    return value


def _dependencies(value: object, folder: Path) -> tuple[Dependency, ...]:
    if isinstance(value, str):
        return (_path(value, folder),)
    if not isinstance(value, list | tuple):
        raise MisfitError("a list of requirements or files, or the name of a file", value)
    return tuple(
        _dependency(str(_part(_text, part, folder, f"[{number}]")), folder) for number, part in enumerate(value)
    )


def _dependency(text: str, folder: Path) -> Dependency:
    looks_like_one = re.fullmatch(r"[^\s@]*(/|\.(txt|in|toml|lock|cfg))", text) is not None
    return folder / text if looks_like_one or (folder / text).is_file() else text


def _writable(value: object, folder: Path) -> Writable:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise MisfitError("true, false, or a list of paths below the app's folder", value)
    return tuple(str(_part(_below, part, folder, f"[{number}]")) for number, part in enumerate(value))


def _below(value: object, folder: Path) -> str:
    text = _text(value, folder)
    if text.startswith("/") or ".." in text.split("/"):
        raise MisfitError("a path below the app's folder", value)
    return text


def _mounts(value: object, folder: Path) -> tuple[Mount, ...]:
    if isinstance(value, Mapping):
        parts = [(f".{host}", host, inside) for host, inside in value.items()]
    elif isinstance(value, list | tuple):
        parts = []
        for number, part in enumerate(value):
            host, colon, inside = str(_part(_text, part, folder, f"[{number}]")).partition(":")
            if not colon:
                raise MisfitError("of the form host:inside", part, at=f"[{number}]")
            parts.append((f"[{number}]", host, inside))
    else:
        raise MisfitError("a table, or a list of texts of the form host:inside", value)
    return tuple(_mount(host, inside, folder, at) for at, host, inside in parts)


def _mount(host: object, value: object, folder: Path, at: str) -> Mount:
    inside, _, mode = str(_part(_text, value, folder, at)).partition(":")
    if not re.fullmatch(r"/[^/\0].*", inside) or ".." in inside.split("/") or mode not in {"", "ro", "rw"}:
        raise MisfitError("an absolute path inside the node, with :ro, :rw or nothing after it", value, at=at)
    return Mount(host=_path(host, folder), inside=inside.rstrip("/"), read_only=mode != "rw")


def _effects(value: object, _folder: Path) -> dict[str, EffectQuery]:
    if not isinstance(value, Mapping):
        raise MisfitError("a table of queries", value)
    for kind in value:
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,49}", kind) or kind == "mail":
            raise MisfitError("a table whose keys are names in small letters, but not mail", kind, at=" has a key that")
    return {kind: _effect_query(part, f".{kind}") for kind, part in value.items()}


def _effect_query(value: object, at: str) -> EffectQuery:
    said = {"query": value} if isinstance(value, str) else value
    if not isinstance(said, Mapping) or not {"query"} <= set(said) <= {"query", "database"}:
        raise MisfitError("a query as a text, or a table with `query` and perhaps `database`", value, at=at)
    query, database = said["query"], said.get("database")
    if not isinstance(query, str) or not _QUERY.match(query) or "\0" in query:
        raise MisfitError("a query that begins with SELECT or WITH", query, at=at)
    if database is not None and (not isinstance(database, str) or not _FILE_INSIDE.fullmatch(database)):
        raise MisfitError("the path of a SQLite file as nodes see it, without ..", database, at=f"{at}.database")
    return EffectQuery(query=query, database=None if database == _STACKS_OWN else database)


_QUERY = re.compile(r"(\s|--[^\n]*\n)*(SELECT|WITH)\b", re.IGNORECASE)
_STACKS_OWN = "{database.url}"
"""The same as no database: the one that this template stands for."""
_FILE_INSIDE = re.compile(rf"{re.escape(_STACKS_OWN)}|(?!(.*/)?\.\.(/|$))[^\0{{}}:]*[^\0{{}}:/]")


def _one_of(choices: type[StrEnum]) -> Read:
    def read(value: object, _folder: Path) -> StrEnum:
        try:
            return choices(str(value))
        except ValueError:
            raise MisfitError(" or ".join(f'"{choice}"' for choice in choices), value) from None

    return read


# ------------------------------------------------------------------------------------------- from the environment


def _same(text: str) -> str:
    return text


def _as_number(text: str) -> object:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text


def _as_words(text: str) -> list[str]:
    return shlex.split(text)


def _as_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _as_flag_or_words(text: str) -> object:
    return {"true": True, "false": False}.get(text.lower(), _as_words(text))


# ----------------------------------------------------------------------------------------------------- the keys


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the settings."""

    read: Read
    example: str
    """A value, as TOML."""
    variable: str | None
    """The environment variable that wins over the files; None if there is none."""
    split: Split = _same
    spoken: str = ""
    """A value, as the environment variable has it."""


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "app": Key(read=_text, example='"shop.app"', variable="HARNESS_APP", spoken="shop.app"),
        "folder": Key(read=_path, example='"backend"', variable="HARNESS_APP_FOLDER", spoken="backend"),
        "pythonpath": Key(
            read=_list(_import_folder, "folders"),
            example='["src"]',
            variable="HARNESS_PYTHONPATH",
            split=_as_words,
            spoken="'src lib'",
        ),
        "options": Key(
            read=_list(_text, "texts"),
            example='["--concurrency=4", "--pool=threads"]',
            variable="HARNESS_OPTIONS",
            split=_as_words,
            spoken="'--concurrency=4 --pool=threads'",
        ),
        "workers": Key(read=_count, example="2", variable="HARNESS_WORKERS", split=_as_number, spoken="2"),
        "env": Key(read=_environment, example='{ SHOP_CURRENCY = "EUR" }', variable=None),
        "env_file": Key(read=_path, example='".env.test"', variable="HARNESS_ENV_FILE", spoken=".env.test"),
        "python": Key(
            read=_matching(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?", 'a version as a text, such as "3.12"'),
            example='"3.12"',
            variable="HARNESS_PYTHON",
            spoken="3.12",
        ),
        "dependencies": Key(
            read=_dependencies,
            example='["requirements.txt", "redis>=5"]',
            variable="HARNESS_DEPENDENCIES",
            split=_as_words,
            spoken="'requirements.txt redis>=5'",
        ),
        "apt": Key(
            read=_list(_matching(r"[a-z0-9][a-z0-9.+-]+(=\S+)?", "the name of a Debian package"), "texts"),
            example='["libpq5"]',
            variable="HARNESS_APT",
            split=_as_words,
            spoken="'libpq5 libxml2'",
        ),
        "dockerfile": Key(
            read=_path, example='"Dockerfile"', variable="HARNESS_DOCKERFILE", spoken="docker/worker.Dockerfile"
        ),
        "image": Key(read=_text, example='"shop-worker:1"', variable="HARNESS_WORKER_IMAGE", spoken="shop-worker:1"),
        "queues": Key(
            read=_list(_matching(r"[^,\0]+", "the name of one queue, without a comma"), "texts"),
            example='["mails", "reports"]',
            variable="HARNESS_QUEUES",
            split=_as_words,
            spoken="'mails reports'",
        ),
        "prepare": Key(
            read=_list(_text, "commands"),
            example='["python manage.py migrate"]',
            variable="HARNESS_PREPARE",
            split=_as_lines,
            spoken="'python manage.py migrate'",
        ),
        "writable": Key(
            read=_writable,
            example='["media", "logs"]',
            variable="HARNESS_WRITABLE",
            split=_as_flag_or_words,
            spoken="'media logs'",
        ),
        "mounts": Key(
            read=_mounts,
            example='["certs:/etc/shop/certs"]',
            variable="HARNESS_MOUNTS",
            split=_as_words,
            spoken="'certs:/etc/shop/certs'",
        ),
        "services": Key(
            read=_list(_one_of(Service), "names of services"),
            example='["postgresql"]',
            variable="HARNESS_SERVICES",
            split=_as_words,
            spoken="'postgresql redis'",
        ),
        "results": Key(
            read=_one_of(ResultsIn), example='"postgresql"', variable="HARNESS_RESULTS", spoken="postgresql"
        ),
        "effects": Key(read=_effects, example='{ order = "SELECT number FROM shop_order" }', variable=None),
        "network": Key(read=_one_of(Network), example='"open"', variable="HARNESS_NETWORK", spoken="open"),
    }
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like this one; None if none is like it."""
    return next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), list(known), n=1)), None)
