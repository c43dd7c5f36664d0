"""The packages of a lock as lines of a requirements file, with the hashes of their files."""

from collections.abc import Sequence

from harness.project.lock_graph import Package


def in_lines(found: Sequence[tuple[Package, str]]) -> tuple[str, ...]:
    """Return a line for each package that is installed, with its marker.

    pip wants a hash for every line or for none. So there are hashes only if each package has some.
    """
    installed = [(package, marker) for package, marker in found if not package.left_out]
    with_hashes = all(package.hashes and not package.reference for package, _ in installed)
    return tuple(
        " ".join([package.line(marker), *(f"--hash={one}" for one in package.hashes if with_hashes)])
        for package, marker in installed
    )
