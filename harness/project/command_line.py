"""The command line of a Celery worker or of beat, taken apart."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_TAKES_VALUE: Mapping[str, str] = {
    "-A": "--app",
    "-b": "--broker",
    "-c": "--concurrency",
    "-f": "--logfile",
    "-I": "--include",
    "-l": "--loglevel",
    "-n": "--hostname",
    "-O": "--optimization",
    "-P": "--pool",
    "-Q": "--queues",
    "-s": "--schedule",
    "-S": "--scheduler",
    "-X": "--exclude-queues",
}
"""Celery's short options that take a value, and their long forms."""
_LONG_WITH_VALUE = frozenset(
    {
        *_TAKES_VALUE.values(),
        *("--autoscale", "--config", "--gid", "--heartbeat-interval", "--loader", "--max-memory-per-child"),
        *("--max-tasks-per-child", "--pidfile", "--prefetch-multiplier", "--result-backend", "--soft-time-limit"),
        *("--statedb", "--task-events-filter", "--time-limit", "--uid", "--umask", "--workdir"),
    }
)
_FLAGS: Mapping[str, str] = {"-B": "--beat", "-D": "--detach", "-E": "--task-events"}
_KEPT = frozenset(
    {
        *("--autoscale", "--concurrency", "--include", "--max-memory-per-child", "--max-tasks-per-child"),
        *("--optimization", "--pool", "--prefetch-multiplier", "--soft-time-limit", "--time-limit", "--task-events"),
        *("--without-gossip", "--without-heartbeat", "--without-mingle", "--exclude-queues"),
    }
)
"""The options that change how tasks are run. The harness itself sees to names, logs, process ids and schedules."""
_WRITES = frozenset({"--logfile", "--pidfile", "--schedule", "--statedb"})
_ENDS = frozenset({";", "&", "&&", "|", "||", "(", ")"})
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$(\w+)")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_MOST_NESTED = 3


@dataclass(frozen=True, kw_only=True)
class Command:
    """One `celery worker` or `celery beat` of a project."""

    source: str
    """The file, and the place in it."""
    is_beat: bool = False
    """True for `celery beat`; a worker with `-B` is a worker."""
    app: str | None = None
    """The argument of `-A`; None if there is none, or if it cannot be known."""
    queues: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """The options of the worker that change how tasks are run, in their long form."""
    with_beat: bool = False
    written: tuple[str, ...] = ()
    """The files that the options name, which Celery writes."""


def commands_in(line: str, source: str, env: Mapping[str, str] | None = None) -> Iterator[Command]:
    """Yield the Celery workers and beats that a line of a shell starts.

    Args:
        line: the command line; others may be before and after it.
        source: where it was found.
        env: the values of variables.
    """
    if "celery" not in line:
        return
    for words in simple_commands(line, env):
        command = _command(words, source)
        if command is not None:
            yield command


def simple_commands(line: str, env: Mapping[str, str] | None = None, *, depth: int = 0) -> Iterator[list[str]]:
    """Yield the words of each command of a line of a shell, also of those in a text within it, as in `sh -c "..."`.

    Args:
        line: the line.
        env: the values of variables; those that are unknown stay as they are.
        depth: how often a text within a text was entered.
    """
    for words in _split(line):
        own = dict(env or {})
        own |= {found[1]: found[2] for word in words if (found := _ASSIGNMENT.fullmatch(word))}
        filled = [_filled(word, own) for word in words]
        yield filled
        for word in filled if depth < _MOST_NESTED else ():
            if " " in word:
                yield from simple_commands(word, own, depth=depth + 1)


def _split(line: str) -> Iterator[list[str]]:
    # Make's variables, and what only a shell could calculate.
    line = re.sub(r"\$\([^()]*\)", "$_", re.sub(r"\$\((\w+)\)", r"${\1}", line))
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    try:
        for word in lexer:
            if word in _ENDS:
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:
        return  # A quotation that does not end: this is no command.
    yield words


def _filled(word: str, env: Mapping[str, str]) -> str:
    """Replace the variables whose value is known; the others stay."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[3]
        return env.get(name) or found[2] or found[0]

    return _VARIABLE.sub(value, word)


def _command(words: Sequence[str], source: str) -> Command | None:
    names = (PurePosixPath("" if word.startswith("-") else word).name for word in words)
    begin = next((number for number, name in enumerate(names) if name == "celery"), None)
    if begin is None:
        return None
    options: dict[str, str] = {}
    plain: list[str] = []
    kept: list[str] = []
    for name, value in _options(words[begin + 1 :]):
        if not name:
            plain.append(value)
            continue
        options[name] = value
        if name in _KEPT:
            kept.append(f"{name}={value}" if value else name)
    kind = next((word for word in plain if word in {"worker", "beat"}), None)
    if kind is None:
        return None
    app = options.get("--app")
    return Command(
        source=source,
        is_beat=kind == "beat",
        app=None if app is None or "$" in app or "<" in app else app,
        queues=tuple(name for name in options.get("--queues", "").split(",") if name and "$" not in name),
        options=tuple(one for one in kept if "$" not in one),
        with_beat="--beat" in options,
        written=tuple(options[name] for name in sorted(_WRITES & options.keys())),
    )


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options in their long form with their values; a word that is no option with an empty name."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, is_given, value = word.partition("=")
            yield name, value if is_given or name not in _LONG_WITH_VALUE else next(rest, "")
        elif word in _FLAGS:
            yield _FLAGS[word], ""
        elif (short := word[:2]) in _TAKES_VALUE:
            yield _TAKES_VALUE[short], word[2:].removeprefix("=") or next(rest, "")
        elif re.fullmatch(r"-[BDE]{2,3}", word):
            yield from ((_FLAGS[f"-{letter}"], "") for letter in word[1:])
        elif not word.startswith("-"):
            yield "", word
