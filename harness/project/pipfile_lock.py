"""Pipfile.lock: which packages a project's workers need, in the versions that Pipenv has locked."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements, read_as, read_text, read_toml
from harness.project.hashed import in_lines
from harness.project.lock_graph import Package, canonical
from harness.project.target import Target


def read(path: Path, target: Target, choice: Choice) -> Requirements:
    """Return what the lock has in `default`, and in the categories that are named.

    Raises:
        ProjectError: the file is damaged, or has no such category. A Pipfile has no extras.
    """
    try:
        lock = json.loads(read_text(path))
    except ValueError as error:
        raise ProjectError(f"{path} is no JSON: {error}.") from None
    if choice.extras:
        raise ProjectError(f"{path} has no extra {min(choice.extras)}: a Pipfile has none.")
    with read_as(path, "what Pipenv writes"):
        # Pipenv calls the group for development `develop`.
        categories = ["default", *sorted("develop" if group == "dev" else group for group in choice.groups)]
        if missing := [category for category in categories if category not in lock]:
            there = ", ".join(sorted(lock.keys() - {"_meta", "default"})) or "none"
            raise ProjectError(f"{path} has no group {missing[0]}; it has {there}.")
        merged: dict[str, Mapping[str, Any]] = {}
        for category in categories:
            merged = {**lock[category], **merged}
        found = []
        for name, table in sorted(merged.items()):
            marker = str(table.get("markers", ""))
            holds = target.holds(marker)
            if holds is not False:
                found.append((_package(name, table), "" if holds else marker))
        return Requirements(
            lines=(*_more_indexes(lock["_meta"]), *in_lines(found)),
            exact=True,
            left_out=tuple(f"{package.name}: {package.left_out}" for package, _ in found if package.left_out),
        )


def python_of(folder: Path) -> tuple[str, str] | None:
    """Return the Python that a Pipfile or its lock demands, with the file's name; None if neither does.

    Raises:
        ProjectError: the file is damaged.
    """
    path, locked = folder / "Pipfile", folder / "Pipfile.lock"
    if path.is_file():
        with read_as(path, "a Pipfile"):
            requires: Mapping[str, Any] = read_toml(path).get("requires", {})
            said = requires.get("python_version") or requires.get("python_full_version")
            return (str(said), path.name) if said else None
    if locked.is_file():
        try:
            said = json.loads(read_text(locked)).get("_meta", {}).get("requires", {}).get("python_version")
        except (ValueError, AttributeError) as error:
            raise ProjectError(f"{locked} is no JSON as Pipenv writes it: {error}.") from None
        return (str(said), locked.name) if said else None
    return None


def _package(name: str, table: Mapping[str, Any]) -> Package:
    reference = left_out = ""
    if "git" in table:
        reference = f"git+{table['git']}@{table['ref']}"
        if "subdirectory" in table:
            reference += f"#subdirectory={table['subdirectory']}"
    elif "path" in table or str(table.get("file", "")).startswith("."):
        left_out = f"the app's own code, {table.get('path', table.get('file'))}: it is mounted"
    elif "file" in table:
        reference = str(table["file"])
    version = "" if reference or left_out else str(table["version"]).removeprefix("==")
    return Package(
        name=canonical(name),
        version=version,
        reference=reference,
        hashes=tuple(table.get("hashes", ())),
        left_out=left_out,
    )


def _more_indexes(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield an option for each index after the first one, which this machine's own settings stand for."""
    yield from (f"--extra-index-url {source['url']}" for source in meta.get("sources", ())[1:])
