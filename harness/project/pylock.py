"""pylock.toml, the standard's lock file (PEP 751): which packages a project's workers need."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements, read_as, read_toml
from harness.project.hashed import in_lines
from harness.project.lock_graph import Package, canonical
from harness.project.target import Target, chosen

_FORMAT = "1."


def read(path: Path, target: Target, choice: Choice) -> Requirements:
    """Return what the lock has for the project's workers: its default groups, and what is named.

    Raises:
        ProjectError: the file is damaged, of a format of another version, or has no such group or extra.
    """
    lock = read_toml(path)
    with read_as(path, "a lock file as PEP 751 defines it"):
        version = str(lock["lock-version"])
        if not version.startswith(_FORMAT):
            raise ProjectError(f"{path} has the format version {version}; known is {_FORMAT}x.")
        for wanted, kind in ((choice.extras, "extras"), (choice.groups, "dependency-groups")):
            there = {canonical(one) for one in lock.get(kind, ())}
            if missing := sorted(wanted - there):
                raise ProjectError(
                    f"{path} has no {missing[0]} among its {kind}; it has {', '.join(sorted(there)) or 'none'}."
                )
        held = choice.groups | frozenset(lock.get("default-groups", ()))
        found = []
        for table in lock["packages"]:
            marker = chosen(str(table.get("marker", "")), choice.extras, held)
            holds = target.holds(marker)
            if holds is not False:
                found.append((_package(path, table), "" if holds else marker))
        return Requirements(
            lines=in_lines(found),
            exact=True,
            left_out=tuple(f"{package.name}: {package.left_out}" for package, _ in found if package.left_out),
            requires_python=str(lock.get("requires-python", "")),
        )


def _package(path: Path, table: Mapping[str, Any]) -> Package:
    name = canonical(table["name"])
    reference = left_out = ""
    hashes: tuple[str, ...] = ()
    if "vcs" in table:
        vcs: Mapping[str, Any] = table["vcs"]
        if "url" not in vcs:
            raise ProjectError(f"{path}: {name} comes from {vcs.get('path')}, a place of one machine; give its URL.")
        reference = f"{vcs['type']}+{vcs['url']}@{vcs['commit-id']}"
        if "subdirectory" in vcs:
            reference += f"#subdirectory={vcs['subdirectory']}"
    elif "directory" in table:
        left_out = f"the app's own code, {table['directory']['path']}: it is mounted"
    elif "archive" in table:
        archive: Mapping[str, Any] = table["archive"]
        if "url" in archive:
            reference = str(archive["url"])
        else:
            left_out = f"a file of this machine, {archive['path']}: name it in the settings' `dependencies`"
    else:
        files = [*table.get("wheels", ()), *([table["sdist"]] if "sdist" in table else ())]
        hashes = tuple(f"{kind}:{value}" for one in files for kind, value in one["hashes"].items())
    version = str(table["version"]) if not (reference or left_out) else str(table.get("version", ""))
    return Package(name=name, version=version, reference=reference, hashes=hashes, left_out=left_out)
