"""Dependencies that are declared and not locked: in pyproject.toml, of the standard and of Poetry, and in setup.cfg."""

import configparser
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from harness.errors import ProjectError
from harness.project import requirements_file
from harness.project.files import Choice, Requirements, read_as, read_project, read_text
from harness.project.lock_graph import canonical
from harness.project.poetry_versions import specifiers

_SELF = re.compile(r"^\s*\.\s*(\[.*\])?\s*$")


def project_python(folder: Path) -> tuple[str, str]:
    """Return the versions of Python that a project is for, and the file that says so; both empty if none does.

    Raises:
        ProjectError: a file is damaged.
    """
    path = folder / "pyproject.toml"
    project = read_project(folder)
    with read_as(path, "a pyproject.toml"):
        standard: Mapping[str, Any] = project.get("project", {})
        poetry: Mapping[str, Any] = project.get("tool", {}).get("poetry", {}).get("dependencies", {})
        if said := standard.get("requires-python") or poetry.get("python"):
            return str(said), path.name
    said = _setup_cfg(folder).get("options", "python_requires", fallback="").strip()
    return (said, "setup.cfg") if said else ("", "")


# ------------------------------------------------------------------------------------------------ pyproject.toml


def has_dependencies(folder: Path) -> bool:
    """Return whether a pyproject.toml says what the project needs. Raises ProjectError for a damaged one."""
    project = read_project(folder)
    with read_as(folder / "pyproject.toml", "a pyproject.toml"):
        standard: Mapping[str, Any] = project.get("project", {})
        return bool(
            standard.get("dependencies")
            or "dependencies" in standard.get("dynamic", ())
            or project.get("tool", {}).get("poetry", {}).get("dependencies")
        )


def read_pyproject(folder: Path, choice: Choice) -> Requirements:
    """Return what a pyproject.toml asks for, with the extras and groups that are named.

    Raises:
        ProjectError: the file is damaged, or has no such group or extra.
    """
    path = folder / "pyproject.toml"
    project = read_project(folder)
    with read_as(path, "a pyproject.toml"):
        standard: Mapping[str, Any] = project.get("project", {})
        poetry: Mapping[str, Any] = project.get("tool", {}).get("poetry", {})
        lines = [*standard.get("dependencies", ())]
        more = Requirements(lines=())
        if "dependencies" in standard.get("dynamic", ()):
            more = _dynamic(folder, project)
        if not lines and not more.lines:
            lines += _of_poetry(path, poetry.get("dependencies", {}), poetry, choice)
        optional = {canonical(extra): wanted for extra, wanted in standard.get("optional-dependencies", {}).items()}
        own = canonical(str(standard.get("name", "")))
        for extra in sorted(choice.extras):
            if extra in optional:
                lines += _of_extra(extra, optional, own, ())
            elif extra not in {canonical(one) for one in poetry.get("extras", {})}:
                raise ProjectError(f"{path} has no extra {extra}; it has {', '.join(sorted(optional)) or 'none'}.")
        lines += [line for group in sorted(choice.groups) for line in _of_group(path, group, project)]
        for line in lines:
            Requirement(line)
        return Requirements(
            lines=(*more.lines, *lines),
            constraints=more.constraints,
            left_out=more.left_out,
            requires_python=str(standard.get("requires-python", "")),
        )


def _of_extra(extra: str, optional: Mapping[str, Any], own: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield what an extra needs; one that names others of the same project stands for theirs."""
    if extra in above:
        raise ValueError(f"the extra {extra} includes itself")
    for line in optional[extra]:
        wanted = Requirement(line)
        if own and canonical(wanted.name) == own:
            for other in sorted(wanted.extras):
                yield from _of_extra(canonical(other), optional, own, (*above, extra))
        else:
            yield line


def _of_group(path: Path, group: str, project: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what a group of PEP 735 or of Poetry asks for."""
    groups = {canonical(name): wanted for name, wanted in project.get("dependency-groups", {}).items()}
    name = canonical(group)
    if name in above:
        raise ValueError(f"the group {group} includes itself: {' -> '.join((*above, name))}")
    if name not in groups:
        poetry: Mapping[str, Any] = project.get("tool", {}).get("poetry", {})
        table = poetry.get("group", {}).get(group, {}).get("dependencies")
        if table is None:
            there = ", ".join(sorted({*groups, *poetry.get("group", {})})) or "none"
            raise ProjectError(f"{path} has no group {group}; it has {there}.")
        yield from _of_poetry(path, table, poetry, Choice())
        return
    for one in groups[name]:
        if isinstance(one, str):
            yield one
        else:
            yield from _of_group(path, one["include-group"], project, (*above, name))


def _dynamic(folder: Path, project: Mapping[str, Any]) -> Requirements:
    """Return what setuptools would read from other files. Raises ProjectError if that cannot be told."""
    said = project.get("tool", {}).get("setuptools", {}).get("dynamic", {}).get("dependencies", {}).get("file")
    if said is None:
        if (folder / "setup.cfg").is_file() and has_requires(folder):
            return read_setup_cfg(folder, Choice())
        raise ProjectError(
            f"{folder / 'pyproject.toml'} leaves its dependencies to the build (dynamic): name a file or packages in "
            "the settings' `dependencies`."
        )
    read = [requirements_file.read(folder / name, folder) for name in ([said] if isinstance(said, str) else said)]
    return Requirements(
        lines=tuple(line for one in read for line in one.lines),
        constraints=tuple(line for one in read for line in one.constraints),
        left_out=tuple(line for one in read for line in one.left_out),
    )


def _of_poetry(path: Path, table: Mapping[str, Any], poetry: Mapping[str, Any], choice: Choice) -> Iterator[str]:
    wanted = {
        canonical(name)
        for extra, names in poetry.get("extras", {}).items()
        if canonical(extra) in choice.extras
        for name in names
    }
    for name, said in table.items():
        if name == "python":
            continue
        one: Mapping[str, Any] = {"version": said} if isinstance(said, str) else said
        if "path" in one or (one.get("optional") and canonical(name) not in wanted):
            continue
        if isinstance(said, list):
            raise ProjectError(f"{path} has several versions of {name}: lock them (`poetry lock`).")
        yield _poetry_line(path, name, one)


def _poetry_line(path: Path, name: str, one: Mapping[str, Any]) -> str:
    extras = f"[{','.join(one['extras'])}]" if one.get("extras") else ""
    marker = f" ; {one['markers']}" if one.get("markers") else ""
    if "git" in one:
        at = next((f"@{one[key]}" for key in ("rev", "tag", "branch") if key in one), "")
        return f"{name}{extras} @ git+{one['git']}{at}{marker}"
    if "url" in one:
        return f"{name}{extras} @ {one['url']}{marker}"
    either = specifiers(one["version"])
    if len(either) > 1:
        raise ProjectError(
            f"{path} allows {one['version']} of {name}, which pip cannot be told: lock it (`poetry lock`)."
        )
    return f"{name}{extras}{either[0]}{marker}"


# ------------------------------------------------------------------------------------------------ setup.cfg


def has_requires(folder: Path) -> bool:
    """Return whether a setup.cfg says what the project needs. Raises ProjectError for a damaged one."""
    return bool(_setup_cfg(folder).get("options", "install_requires", fallback="").strip())


def read_setup_cfg(folder: Path, choice: Choice) -> Requirements:
    """Return what a setup.cfg asks for, with the extras that are named.

    Raises:
        ProjectError: the file is damaged, or has no such extra; it never has groups.
    """
    path = folder / "setup.cfg"
    if choice.groups:
        raise ProjectError(f"{path} has no group {min(choice.groups)}: a setup.cfg has none.")
    parser = _setup_cfg(folder)
    said = parser.get("options", "install_requires", fallback="").strip()
    if said.startswith("file:"):
        read = [requirements_file.read(folder / name.strip(), folder) for name in said[len("file:") :].split(",")]
        lines = [line for one in read for line in one.lines]
    else:
        lines = _listed(said)
    section = "options.extras_require"
    extras = {canonical(name): text for name, text in (parser.items(section) if parser.has_section(section) else ())}
    for extra in sorted(choice.extras):
        if extra not in extras:
            raise ProjectError(f"{path} has no extra {extra}; it has {', '.join(sorted(extras)) or 'none'}.")
        lines += _listed(extras[extra])
    with read_as(path, "a setup.cfg"):
        for line in lines:
            if not line.startswith("-"):
                Requirement(line)
    python = parser.get("options", "python_requires", fallback="")
    return Requirements(lines=tuple(lines), requires_python=python.strip())


def _listed(text: str) -> list[str]:
    lines = (line.partition(" #")[0].strip() for line in re.split(r"[\n]", text))
    return [line for line in lines if line and not line.startswith("#") and not _SELF.match(line)]


def _setup_cfg(folder: Path) -> configparser.ConfigParser:
    path = folder / "setup.cfg"
    parser = configparser.ConfigParser(interpolation=None)
    if path.is_file():
        try:
            parser.read_string(read_text(path))
        except configparser.Error as error:
            raise ProjectError(f"{path} is no setup.cfg: {' '.join(str(error).split())}.") from None
    return parser
