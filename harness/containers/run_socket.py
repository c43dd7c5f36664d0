"""The address of a Unix socket in a run folder, whose path may be longer than an address can be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def address_of(folder: Path, name: str) -> Iterator[str]:
    """Give the address of a socket in a folder, for as long as it is bound or connected to.

    An address has 107 bytes at most.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{opened}"
        # Only Linux has these names.
        yield f"{short if Path(short).exists() else folder}/{name}"
    finally:
        os.close(opened)
