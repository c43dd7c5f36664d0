"""poetry.lock, of Poetry 1 and 2: which packages a project's workers need, in the versions that Poetry has locked.

From Poetry 2.1 on, each package has its groups and its marker. Before, what is needed follows from the dependencies in
pyproject.toml; if that has none, from the package's category.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements, read_as, read_project, read_toml
from harness.project.hashed import in_lines
from harness.project.lock_graph import Edge, Package, canonical, exactly, reached
from harness.project.poetry_versions import specifiers
from harness.project.target import Target

_FORMATS = ("1.", "2.")
_MAIN = "main"


def read(path: Path, target: Target, choice: Choice) -> Requirements:
    """Return what the lock has for the project's workers: no groups and extras but those that are named.

    Raises:
        ProjectError: the file is damaged or of a format of another version, or there is no such group or extra.
    """
    lock = read_toml(path)
    with read_as(path, "what Poetry writes"):
        meta: Mapping[str, Any] = lock["metadata"]
        version = str(meta.get("lock-version", "1.0"))
        if not version.startswith(_FORMATS):
            raise ProjectError(f"{path} has the format version {version}; known are {'x, '.join(_FORMATS)}x.")
        tables: list[Mapping[str, Any]] = lock.get("package", [])
        _refuse_unknown_extras(path, lock, choice.extras)
        packages = [(table, _package(table, meta)) for table in tables]
        if any("groups" in table for table in tables):
            found = list(_of_groups(path, packages, target, choice))
        else:
            roots = list(_roots(path.parent, lock, choice)) or list(_of_category(tables, choice.groups))
            found = reached((package for _, package in packages), roots, target)
        return Requirements(
            lines=in_lines(found),
            exact=True,
            left_out=tuple(f"{package.name}: {package.left_out}" for package, _ in found if package.left_out),
            requires_python=str(meta.get("python-versions", "")),
        )


def _refuse_unknown_extras(path: Path, lock: Mapping[str, Any], extras: frozenset[str]) -> None:
    there = {canonical(extra) for extra in lock.get("extras", {})}
    if missing := sorted(extras - there):
        raise ProjectError(f"{path} has no extra {missing[0]}; it has {', '.join(sorted(there)) or 'none'}.")


def _package(table: Mapping[str, Any], meta: Mapping[str, Any]) -> Package:
    source: Mapping[str, Any] = table.get("source", {})
    kind = source.get("type", "")
    reference = left_out = ""
    if kind == "git":
        reference = f"git+{source['url']}@{source.get('resolved_reference') or source['reference']}"
    elif kind == "url":
        reference = str(source["url"])
    elif kind == "directory":
        left_out = f"code of this machine, {source['url']}: mount it or name it in the settings"
    elif kind == "file":
        left_out = f"a file of this machine, {source['url']}: name it in the settings' `dependencies`"
    # Before lock version 2, the hashes of all packages are in one table.
    files = table["files"] if "files" in table else meta.get("files", {}).get(table["name"], [])
    edges = [
        (edge, optional)
        for name, said in table.get("dependencies", {}).items()
        for edge, optional in _edges(name, said)
    ]
    by_extra = {
        canonical(extra): tuple(
            edge for edge, _ in edges if edge.name in {canonical(Requirement(_plain(one)).name) for one in wanted}
        )
        for extra, wanted in table.get("extras", {}).items()
    }
    return Package(
        name=canonical(table["name"]),
        version=str(table["version"]),
        reference=reference,
        hashes=tuple(str(one["hash"]) for one in files),
        left_out=left_out,
        edges=tuple(edge for edge, optional in edges if not optional),
        by_extra=by_extra,
    )


def _plain(said: str) -> str:
    """Return the name in a dependency of an extra, which Poetry writes as `redis (>=4.5,<5.0)`."""
    return said.partition(" ")[0].partition("(")[0]


def _edges(name: str, said: Any) -> Iterator[tuple[Edge, bool]]:
    """Yield one dependency, as Poetry writes it, with whether it is only there for an extra."""
    for one in said if isinstance(said, list) else [said]:
        table: Mapping[str, Any] = {"version": one} if isinstance(one, str) else one
        marker = str(table.get("markers", ""))
        python = _python_marker(str(table.get("python", "*")))
        yield (
            Edge(
                name=canonical(name),
                extras=frozenset(map(canonical, table.get("extras", ()))),
                marker=" and ".join(f"({part})" for part in (_without_extra(marker), python) if part),
                versions=tuple(specifiers(table.get("version", "*"))),
            ),
            bool(table.get("optional", False)),
        )


def _without_extra(marker: str) -> str:
    """Return a marker, or nothing if it only says which extra it belongs to: the extra is followed by name."""
    return "" if marker.startswith("extra ==") and " and " not in marker and " or " not in marker else marker


def _python_marker(constraint: str) -> str:
    """Return Poetry's constraint of Python as a marker."""
    either = []
    for allowed in specifiers(constraint):
        parts = [f"python_full_version {one.operator} '{one.version}'" for one in sorted(allowed, key=str)]
        if not parts:
            return ""
        either.append(" and ".join(parts))
    return " or ".join(f"({one})" for one in either)


# ------------------------------------------------------------------------------------------------ Poetry 2.1


def _of_groups(
    path: Path, packages: Sequence[tuple[Mapping[str, Any], Package]], target: Target, choice: Choice
) -> Iterator[tuple[Package, str]]:
    there = {group for table, _ in packages for group in table["groups"]}
    if missing := sorted(choice.groups - there):
        raise ProjectError(f"{path} has no group {missing[0]}; it has {', '.join(sorted(there - {_MAIN})) or 'none'}.")
    for table, package in packages:
        mine = {_MAIN, *choice.groups} & set(table["groups"])
        markers = [_with_extras(_marker_of(table, group), choice.extras) for group in sorted(mine)]
        if table.get("optional") and not choice.extras and mine == {_MAIN}:
            continue
        open_ones = [marker for marker in markers if target.holds(marker) is not False]
        if open_ones:
            always = any(target.holds(marker) for marker in open_ones)
            yield package, "" if always else " or ".join(f"({marker})" for marker in open_ones)


def _marker_of(table: Mapping[str, Any], group: str) -> str:
    marker = table.get("markers", "")
    return str(marker.get(group, "")) if isinstance(marker, Mapping) else str(marker)


def _with_extras(marker: str, extras: frozenset[str]) -> str:
    """Return a marker without its words about extras, for a choice of extras."""
    if "extra" not in marker:
        return marker
    Marker(marker)  # A damaged one is told as it stands.
    for extra in sorted(extras):
        for quote in ('"', "'"):
            marker = marker.replace(f"extra == {quote}{extra}{quote}", "python_version >= '0'")
    return marker


# ------------------------------------------------------------------------------------------------ before that


def _roots(folder: Path, lock: Mapping[str, Any], choice: Choice) -> Iterator[Edge]:
    """Yield what pyproject.toml asks for, in Poetry's table or in the standard one."""
    project = read_project(folder)
    poetry: Mapping[str, Any] = project.get("tool", {}).get("poetry", {})
    in_extras = {
        canonical(_plain(name))
        for extra, names in lock.get("extras", {}).items()
        if canonical(extra) in choice.extras
        for name in names
    }
    for name, said in poetry.get("dependencies", {}).items():
        if name != "python":
            yield from (edge for edge, optional in _edges(name, said) if not optional or edge.name in in_extras)
    for group in sorted(choice.groups):
        table = poetry.get("group", {}).get(group, {}).get("dependencies")
        if table is None and group == "dev":
            table = poetry.get("dev-dependencies")
        if table is None:
            raise ProjectError(f"{folder / 'pyproject.toml'} has no group {group}.")
        for name, said in table.items():
            yield from (edge for edge, _ in _edges(name, said))
    standard: Mapping[str, Any] = project.get("project", {})
    more = [
        line
        for extra, lines in standard.get("optional-dependencies", {}).items()
        if canonical(extra) in choice.extras
        for line in lines
    ]
    for line in (*standard.get("dependencies", ()), *more):
        wanted = Requirement(line)
        yield Edge(
            name=canonical(wanted.name),
            extras=frozenset(map(canonical, wanted.extras)),
            marker=str(wanted.marker or ""),
            versions=(wanted.specifier,),
        )


def _of_category(tables: list[Mapping[str, Any]], groups: frozenset[str]) -> Iterator[Edge]:
    """Yield every package of the category of production, or of one that is named."""
    for table in tables:
        if not table.get("optional") and table.get("category", _MAIN) in {_MAIN, *groups}:
            yield Edge(name=canonical(table["name"]), versions=exactly(str(table["version"])))
