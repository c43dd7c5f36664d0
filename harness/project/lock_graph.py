"""The needed part of a lock: the packages that can be reached from those that a project asks for.

A lock holds the packages of all groups, extras and systems. Those that a worker on Linux needs are found by a walk from
the project along the dependencies. A package gets the markers of the ways that lead to it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from harness.project.target import Target

_Condition = frozenset[str]
"""Markers that have to hold all together; none for a way that is always open."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One dependency of a package."""

    name: str
    """The normalized name."""
    extras: frozenset[str] = frozenset()
    marker: str = ""
    versions: tuple[SpecifierSet, ...] = ()
    """The versions that are meant, each in one of the sets; empty for any. A lock may have several of one package."""

    def fits(self, version: str) -> bool:
        """Return whether a version is meant."""
        return not self.versions or any(one.contains(version, prereleases=True) for one in self.versions)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package of a lock."""

    name: str
    """The normalized name."""
    version: str = ""
    reference: str = ""
    """A direct reference to it in pip's words, if it comes from no index."""
    hashes: tuple[str, ...] = ()
    left_out: str = ""
    """The reason why it is not installed; its dependencies are. Empty if it is."""
    edges: tuple[Edge, ...] = ()
    by_extra: Mapping[str, tuple[Edge, ...]] = field(default_factory=dict)

    def line(self, marker: str = "") -> str:
        """Return it as a line of a requirements file, without hashes."""
        what = f"{self.name} @ {self.reference}" if self.reference else f"{self.name}=={self.version}"
        return f"{what} ; {marker}" if marker else what


def canonical(name: str) -> str:
    """Return the normalized name of a package. Raises TypeError if it is no text."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a package")
    return canonicalize_name(name)


def exactly(version: str | None) -> tuple[SpecifierSet, ...]:
    """Return the sets of versions that have only this one; none, for any version, if it is None."""
    return (SpecifierSet(f"=={version}"),) if version else ()


def reached(packages: Iterable[Package], roots: Iterable[Edge], target: Target) -> list[tuple[Package, str]]:
    """Return the packages that are needed on `target`, each with its marker, sorted by name.

    Raises:
        ValueError: a package that is needed is not in the lock, or a marker is none.
    """
    by_name: dict[str, list[Package]] = {}
    for package in packages:
        by_name.setdefault(package.name, []).append(package)
    ways: dict[tuple[str, str, str], set[_Condition]] = {}
    ahead: list[tuple[Edge, _Condition]] = [(edge, frozenset()) for edge in roots]
    found: dict[tuple[str, str], Package] = {}
    while ahead:
        edge, condition = ahead.pop()
        holds = target.holds(edge.marker)
        if holds is False:
            continue
        here = condition if holds else condition | {edge.marker}
        for package in _meant(by_name, edge):
            found[package.name, package.version] = package
            for extra in ("", *sorted(edge.extras)):
                known = ways.setdefault((package.name, package.version, extra), set())
                # A way that is open whenever this one is makes this one needless.
                if any(other <= here for other in known):
                    continue
                known.add(here)
                ahead += [(beyond, here) for beyond in (package.by_extra.get(extra, ()) if extra else package.edges)]
    return [(found[key], _marker(_conditions(ways, key))) for key in sorted(found)]


def _meant(by_name: Mapping[str, list[Package]], edge: Edge) -> list[Package]:
    candidates = by_name.get(edge.name)
    if not candidates:
        raise ValueError(f"{edge.name} is needed, and there is no such package in it")
    if len(candidates) == 1:
        return candidates
    if fitting := [package for package in candidates if edge.fits(package.version)]:
        return fitting
    raise ValueError(f"of the {len(candidates)} versions of {edge.name} none is the one that is needed")


def _conditions(ways: Mapping[tuple[str, str, str], set[_Condition]], key: tuple[str, str]) -> Iterator[_Condition]:
    for (name, version, _), conditions in ways.items():
        if (name, version) == key:
            yield from conditions


def _marker(conditions: Iterable[_Condition]) -> str:
    """Return one marker that holds if one of the conditions does; empty if one always does."""
    every = set(conditions)
    least = [one for one in every if not any(other < one for other in every)]
    if frozenset() in least:
        return ""
    return " or ".join(sorted(" and ".join(f"({marker})" for marker in sorted(one)) for one in least))
