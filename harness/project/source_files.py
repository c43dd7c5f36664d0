"""The files of a project: which are looked at, and what they say. Nothing of them is run."""

import ast
import os
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from harness.errors import UsageError

_MOST_FILES = 20_000
"""A project of one's own has fewer. A folder with more is somebody's home, or holds data."""
_LARGEST_BYTES = 1_000_000
"""A longer file was written by a program."""
_NOT_OURS = frozenset(
    {"node_modules", "bower_components", "site-packages", "__pycache__", "__pypackages__", "venv", "virtualenv"}
)
"""Folders of other people's code. Those whose name begins with a dot are left out as well."""
_TELLING = re.compile(
    rb"celery|shared_task|\.task\b|acks_late|broker_|result_backend|beat_schedule|accept_content|environ|getenv"
    rb"|prefetch_multiplier|time_limit|worker_lost|delivery_mode|result_expires|task_default_|task_annotations"
    rb"|import\s*\*|BaseSettings|decouple|flask|fastapi|django|sqlite|postgres|psycopg|redis",
    re.IGNORECASE,
)
"""The words of a Python file that says anything that is asked for here, or may import it without a word of its own;
the others are not parsed."""
_TEST = re.compile(r"(^|/)(tests?|testing)/|(^|/)(test_[^/]*|[^/]*_test|conftest|tests)\.py$")


@dataclass(frozen=True, kw_only=True)
class Module:
    """A Python file that was parsed."""

    path: PurePosixPath
    """Its path in the project."""
    tree: ast.Module

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree: many questions are asked of them, and walking is most of the work."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def conditions(self) -> Mapping[ast.AST, str]:
        """The condition under which a node runs at all, in words, for each that is in an `if` or handles an error."""
        found: dict[ast.AST, str] = {}
        # The outer ones come first, so that the innermost condition stays.
        for node in self.nodes:
            for branch, words in _branches(node):
                found.update((inner, words) for statement in branch for inner in ast.walk(statement))
        return found

    @property
    def is_test(self) -> bool:
        """True if it belongs to the project's tests."""
        return is_test(self.path)


@dataclass
class Sources:
    """A project's files. Files that cannot be read are left out, and named in `notes`."""

    root: Path
    notes: list[str] = field(default_factory=list)
    """Sentences on what was left out and might have mattered."""
    outward: dict[PurePosixPath, Path] = field(default_factory=dict)
    """The symbolic links that lead out of the project, and where they lead."""

    def __post_init__(self) -> None:
        """Refuse what is no folder. Raises UsageError."""
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is no folder: give the folder of your project.")
        self.root = self.root.resolve()

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        """The paths of all files that are looked at, those near the root first."""
        found: list[PurePosixPath] = []
        for path in self._walk():
            if len(found) == _MOST_FILES:
                self.notes.append(f"the folder has more than {_MOST_FILES} files: only the first were looked at.")
                break
            found.append(path)
        return tuple(sorted(found, key=lambda path: (len(path.parts), path)))

    def _walk(self) -> Iterator[PurePosixPath]:
        """Yield the paths of files. Links to folders are followed last, so that a folder has its real name."""
        seen: set[Path] = set()
        ahead, links = deque([PurePosixPath()]), deque[PurePosixPath]()
        while ahead or links:
            folder = (ahead or links).popleft()
            real = (self.root / folder).resolve()
            if real in seen:
                continue
            seen.add(real)
            try:
                entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
            except OSError as error:
                self.notes.append(f"the folder {folder} cannot be read: {error.strerror}.")
                continue
            if any(entry.name == "pyvenv.cfg" for entry in entries):
                continue  # A virtual environment of any name.
            for entry in entries:
                path = folder / entry.name
                if not _is_dir(entry):
                    yield path
                elif entry.name not in _NOT_OURS and not entry.name.startswith("."):
                    (links if entry.is_symlink() else ahead).append(path)
                    if entry.is_symlink() and not (target := Path(entry.path).resolve()).is_relative_to(self.root):
                        self.outward[path] = target

    def text(self, path: PurePosixPath) -> str:
        """Return a file's text; bytes that are not UTF-8 are replaced. Empty for what cannot be read."""
        return self._bytes(path).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")

    def _bytes(self, path: PurePosixPath) -> bytes:
        file = self.root / path
        try:
            if not file.is_file() or file.stat().st_size > _LARGEST_BYTES:
                return b""
            return file.read_bytes()
        except OSError as error:
            self.notes.append(f"{path} cannot be read: {error.strerror}.")
            return b""

    def named(self, pattern: str) -> Iterator[PurePosixPath]:
        """Yield the files whose name matches a regular expression as a whole."""
        known = re.compile(pattern)
        return (path for path in self.files if known.fullmatch(path.name))

    def has(self, path: PurePosixPath | str) -> bool:
        """Return whether there is a file or folder of this path."""
        return (self.root / path).exists()

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """The Python files that say anything about Celery or the environment, parsed."""
        return tuple(module for path in self.files if path.suffix == ".py" and (module := self._parsed(path)))

    @cached_property
    def own_modules(self) -> tuple[Module, ...]:
        """Those of them that are no tests."""
        return tuple(module for module in self.modules if not module.is_test)

    def _parsed(self, path: PurePosixPath) -> Module | None:
        source = self._bytes(path)
        if not _TELLING.search(source):
            return None
        try:
            with warnings.catch_warnings():
                # The compiler warns about the project's own code, such as an unknown escape sequence.
                warnings.simplefilter("ignore")
                # Bytes, so that Python itself finds out about the encoding.
                return Module(path=path, tree=ast.parse(source))
        except SyntaxError as error:
            where = f", line {error.lineno}" if error.lineno else ""
            self.notes.append(f"{path} was skipped, because it is no valid Python{where}: {error.msg}.")
        except (ValueError, RecursionError, MemoryError) as error:
            self.notes.append(f"{path} was skipped, because it is no valid Python: {error}.")
        return None


def _branches(node: ast.AST) -> Iterator[tuple[list[ast.stmt], str]]:
    """Yield the statements that a node runs in some cases only, with the case in words."""
    match node:
        case ast.If(test=test, body=body, orelse=orelse):
            words = _source_of(test)
            yield body, words
            yield orelse, f"not ({words})"
        case ast.ExceptHandler(type=kind, body=body):
            yield body, f"{_source_of(kind) if kind else 'an error'} is raised"


def _source_of(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except RecursionError:
        # A sum of a thousand numbers, for example.
        return "…"


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link that leads nowhere.


def is_test(path: PurePosixPath) -> bool:
    """Return whether a file belongs to a project's tests, by its path."""
    return bool(_TEST.search(str(path)))


def import_name(path: PurePosixPath, folder: PurePosixPath) -> str:
    """Return the name by which a Python file is imported from a folder."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def text_of(node: ast.expr | None) -> str | None:
    """Return the value of a string literal; None for any other expression."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def dotted(node: ast.expr) -> str | None:
    """Return the text of a name such as `a.b.c`; None for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None
