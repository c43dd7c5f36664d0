"""The Celery apps in a project's sources: where one is made, and by which name a worker finds it."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath

from harness.project.source_files import Module, Sources, dotted, import_name, text_of

_CLASSES = frozenset({"celery.Celery", "celery.app.Celery", "celery.app.base.Celery"})
_CURRENT = frozenset({"celery.current_app", "celery._state.current_app"})
SOURCE_FOLDERS = frozenset({"src", "lib", "python"})
"""Folders that hold nothing but what is imported: commands are run, and files are found, from the folder above."""
_ROUNDS = 4
"""A factory may call another one, which may lie in another module."""


@dataclass(frozen=True, kw_only=True)
class CeleryApp:
    """A variable of a module that holds a Celery app."""

    path: PurePosixPath
    """The module's path in the project."""
    variable: str
    line: int
    made_by: str
    """The expression that makes it."""
    is_shadowed: bool
    """True if Celery would take another variable of the module for the app: one called `app`."""

    def argument(self, folder: PurePosixPath) -> str:
        """Return what `celery -A` takes for this app in a folder."""
        module = import_name(self.path, folder)
        plain = self.variable == "app" or (self.variable == "celery" and not self.is_shadowed)
        return module if plain else f"{module}:{self.variable}"


@dataclass(frozen=True)
class Names:
    """The meanings of the names in a module."""

    meanings: Mapping[str, str]
    """The full name of what was imported, by its name in the module."""

    @staticmethod
    def of(module: Module) -> "Names":
        """Return the meanings of all names that a module imports at any place."""
        return _names(module)

    def full(self, node: ast.expr) -> str | None:
        """Return the full name of an expression such as `a.b`; None if it is no name."""
        name = dotted(node)
        if name is None:
            return None
        first, dot, rest = name.partition(".")
        return f"{self.meanings.get(first, first)}{dot}{rest}"


@lru_cache(maxsize=4096)
def _names(module: Module) -> Names:
    meanings: dict[str, str] = {}
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                meanings[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            package = _package(module.path, node)
            for alias in node.names:
                meanings[alias.asname or alias.name] = f"{package}.{alias.name}".lstrip(".")
    return Names(meanings)


def _package(path: PurePosixPath, node: ast.ImportFrom) -> str:
    """Return the package of an import, for a relative one from the project's root."""
    if not node.level:
        return node.module or ""
    parts = path.parts[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


@dataclass
class _Known:
    """The names that are known so far to be an app, or to make one, in full from the project's root."""

    makers: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    """Attributes that some module has assigned an app to, such as `celery_app` of a FastAPI app."""

    def makes(self, name: str) -> bool:
        """Return whether a name, as it is imported from any folder, makes an app."""
        return name in _CLASSES or any(maker == name or maker.endswith(f".{name}") for maker in self.makers)


@dataclass(frozen=True)
class _Reader:
    """Reads one module."""

    module: Module
    names: Names
    known: _Known

    def is_app(self, node: ast.expr | None, local: frozenset[str] = frozenset()) -> bool:
        """Return whether an expression is a Celery app."""
        match node:
            case ast.Call(func=func):
                name = self.names.full(func)
                return name is not None and self.known.makes(self._from_root(name))
            case ast.Subscript(value=ast.Attribute(attr="extensions"), slice=key):
                return text_of(key) == "celery"
            case ast.BoolOp() | ast.IfExp():
                return any(self.is_app(one, local) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr))
            case ast.Name(id=name):
                return name in local or self.names.full(node) in _CURRENT
            case ast.Attribute(attr=attribute):
                return attribute in self.known.attributes or self.names.full(node) in _CURRENT
        return False

    def _from_root(self, name: str) -> str:
        """Return the full name of what a plain name means: something imported, or something of this module."""
        if "." in name or name in self.names.meanings:
            return name
        return f"{import_name(self.module.path, PurePosixPath())}.{name}"

    def learn(self) -> None:
        """Add what this module says of classes, factories and attributes."""
        for node in self.module.nodes:
            if isinstance(node, ast.ClassDef):
                bases = (self.names.full(base) for base in node.bases)
                if any(base is not None and self.known.makes(self._from_root(base)) for base in bases):
                    self.known.makers.add(self._from_root(node.name))
            elif isinstance(node, ast.FunctionDef) and self._returns_app(node):
                self.known.makers.add(self._from_root(node.name))
            elif isinstance(node, ast.Assign) and self.is_app(node.value):
                self.known.attributes.update(
                    target.attr
                    for target in node.targets
                    if isinstance(target, ast.Attribute) and "celery" in target.attr.lower()
                )

    def _returns_app(self, function: ast.FunctionDef) -> bool:
        inside = tuple(ast.walk(function))
        returned = [node.value for node in inside if isinstance(node, ast.Return) and node.value is not None]
        if all(isinstance(value, ast.Constant) for value in returned):
            return False
        local = frozenset(
            target.id
            for node in inside
            if isinstance(node, ast.Assign) and self.is_app(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        )
        return any(self.is_app(value, local) for value in returned)

    def apps(self) -> Iterator[CeleryApp]:
        """Yield the variables of this module that hold an app."""
        assigned = list(_assigned(self.module.tree.body))
        names = {name for name, _ in assigned} | self.names.meanings.keys()
        # A name may be assigned several times; the first app counts.
        apps = {name: value for name, value in reversed(assigned) if self.is_app(value)}
        for name, value in sorted(apps.items(), key=lambda pair: pair[1].lineno):
            yield CeleryApp(
                path=self.module.path,
                variable=name,
                line=value.lineno,
                made_by=_shortly(value),
                is_shadowed="app" in names and name != "app",
            )


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the variables that a module assigns when it is imported, and what is assigned."""
    for node in body:
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.If() | ast.Try() | ast.With():
                yield from _assigned(node.body)
                yield from _assigned(getattr(node, "orelse", []))
                for handler in getattr(node, "handlers", []):
                    yield from _assigned(handler.body)


def _shortly(node: ast.expr) -> str:
    """Return an expression's text without the arguments of its call."""
    return f"{ast.unparse(node.func)}(...)" if isinstance(node, ast.Call) else ast.unparse(node)


def celery_apps(sources: Sources) -> tuple[CeleryApp, ...]:
    """Return the Celery apps that the modules of a project hold."""
    known = _Known()
    readers = [_Reader(module, Names.of(module), known) for module in sources.modules]
    for _round in range(_ROUNDS):
        before = len(known.makers), len(known.attributes)
        for reader in readers:
            reader.learn()
        if before == (len(known.makers), len(known.attributes)):
            break
    return tuple(app for reader in readers for app in reader.apps())


def import_folder(sources: Sources, path: PurePosixPath) -> PurePosixPath:
    """Return the folder from which a project imports one of its modules.

    That is the folder above the packages with an `__init__.py`. A package may have none. Then a folder further up
    counts if a manage.py is there, or if more of the project's own imports begin there.
    """
    nearest = path.parent
    while nearest.name and sources.has(nearest / "__init__.py"):
        nearest = nearest.parent
    if path.stem == "celery" and nearest == path.parent and nearest.name:
        nearest = nearest.parent  # Under the name `celery` it would be imported instead of Celery.
    above = [folder for folder in path.parents if nearest.is_relative_to(folder)]
    for folder in above:
        if sources.has(folder / "manage.py"):
            return folder
    return max(above, key=lambda folder: (_imports_from(sources, folder, path), len(folder.parts)))


def source_folders(sources: Sources, folder: PurePosixPath) -> tuple[PurePosixPath, ...]:
    """Return the folders beside `folder` or in it that hold what the project imports and that `folder` has not.

    Such a folder is installed in development, or is on PYTHONPATH: the `src` of a project whose scripts lie beside it.
    """
    beside = [one for parent in {folder, folder.parent} for name in SOURCE_FOLDERS if sources.has(one := parent / name)]
    if not beside:
        return ()
    tops = {full.partition(".")[0] for module in sources.own_modules for full in Names.of(module).meanings.values()}
    outside = [top for top in tops if not _holds(sources, folder, top)]
    return tuple(sorted(one for one in beside if one != folder and any(_holds(sources, one, top) for top in outside)))


def _holds(sources: Sources, folder: PurePosixPath, top: str) -> bool:
    return bool(top) and (sources.has(folder / top) or sources.has(folder / f"{top}.py"))


def _imports_from(sources: Sources, folder: PurePosixPath, path: PurePosixPath) -> int:
    """Return how many imports of modules beside or near `path` name something that lies in `folder`."""
    count = 0
    for module in sources.own_modules:
        if not module.path.is_relative_to(path.parent):
            continue
        for node in module.nodes:
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                tops = [node.module.partition(".")[0]]
            elif isinstance(node, ast.Import):
                tops = [alias.name.partition(".")[0] for alias in node.names]
            else:
                continue
            own = (top for top in tops if top != "celery")
            count += sum(_holds(sources, folder, top) for top in own)
    return count
