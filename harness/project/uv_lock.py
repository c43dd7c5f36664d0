"""uv.lock: which packages a project's workers need, in the versions that uv has locked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements, read_as, read_toml
from harness.project.hashed import in_lines
from harness.project.lock_graph import Edge, Package, canonical, exactly, reached
from harness.project.target import Target

_FORMAT = 1
_LOCAL = ("editable", "virtual", "directory")


def read(path: Path, target: Target, choice: Choice) -> Requirements:
    """Return what the lock has for the project's workers: no groups and extras but those that are named.

    Raises:
        ProjectError: the file is damaged, of a format of another version, or has no such group or extra.
    """
    lock = read_toml(path)
    with read_as(path, "what uv writes"):
        if lock["version"] != _FORMAT:
            raise ProjectError(f"{path} has the format version {lock['version']}; known is {_FORMAT}.")
        tables: list[Mapping[str, Any]] = lock["package"]
        roots = list(_roots(path, tables, choice))
        found = reached([_package(path, table) for table in tables], roots, target)
        return Requirements(
            lines=(*_more_indexes(tables), *in_lines(found)),
            exact=True,
            left_out=tuple(f"{package.name}: {package.left_out}" for package, _ in found if package.left_out),
            requires_python=str(lock.get("requires-python", "")),
        )


def _roots(path: Path, tables: list[Mapping[str, Any]], choice: Choice) -> Iterator[Edge]:
    """Yield the project itself with its extras, and the dependencies of its groups."""
    local = [table for table in tables if any(kind in table["source"] for kind in _LOCAL)]
    own = [table for table in local if _place(table) == "."] or local
    if not own:
        raise ProjectError(f"{path} has no project of its own, so that nothing says which packages it needs.")
    offered = {extra for table in own for extra in table.get("optional-dependencies", {})}
    named = {group for table in own for group in table.get("dev-dependencies", {})}
    for wanted, there, kind in ((choice.extras, offered, "extra"), (choice.groups, named, "group")):
        if missing := sorted(wanted - there):
            has = ", ".join(sorted(there)) or "none"
            raise ProjectError(f"{path} has no {kind} {missing[0]}; it has {has}.")
    for table in own:
        yield Edge(name=canonical(table["name"]), extras=choice.extras, versions=exactly(table.get("version")))
        for group in sorted(choice.groups):
            yield from map(_edge, table.get("dev-dependencies", {}).get(group, ()))


def _place(table: Mapping[str, Any]) -> str:
    return next((str(table["source"][kind]) for kind in _LOCAL if kind in table["source"]), "")


def _package(path: Path, table: Mapping[str, Any]) -> Package:
    source: Mapping[str, Any] = table["source"]
    name, version = canonical(table["name"]), str(table.get("version", ""))
    reference = left_out = ""
    if "git" in source:
        # uv writes `https://host/repo?rev=main#commit`; the commit alone decides.
        address, _, commit = str(source["git"]).partition("#")
        reference = f"git+{address.partition('?')[0]}@{commit}"
    elif "url" in source:
        reference = str(source["url"])
    elif "path" in source:
        left_out = f"a file of this machine, {source['path']}: name it in the settings' `dependencies`"
    elif any(kind in source for kind in _LOCAL):
        left_out = f"the app's own code, {_place(table)}: it is mounted"
    elif "registry" not in source:
        raise ProjectError(f"{path}: {name} comes from {', '.join(source)}, which is not known here.")
    files = [table["sdist"]] if "sdist" in table else []
    return Package(
        name=name,
        version=version,
        reference=reference,
        hashes=tuple(str(one["hash"]) for one in (*table.get("wheels", ()), *files) if "hash" in one),
        left_out=left_out,
        edges=tuple(map(_edge, table.get("dependencies", ()))),
        by_extra={
            canonical(extra): tuple(map(_edge, edges))
            for extra, edges in table.get("optional-dependencies", {}).items()
        },
    )


def _edge(table: Mapping[str, Any]) -> Edge:
    return Edge(
        name=canonical(table["name"]),
        extras=frozenset(map(canonical, table.get("extra", ()))),
        marker=str(table.get("marker", "")),
        versions=exactly(table.get("version")),
    )


def _more_indexes(tables: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield an option for each index beside the most usual one, which this machine's own settings stand for."""
    counted = Counter(
        str(table["source"]["registry"])
        for table in tables
        if str(table["source"].get("registry", "")).startswith("http")
    )
    yield from (f"--extra-index-url {index}" for index, _ in counted.most_common()[1:])
