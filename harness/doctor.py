"""The checks of the command `doctor`: the environment that a run needs."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from harness import __version__
from harness.containers import images
from harness.containers.engine import network_leads_out
from harness.containers.engine_choice import connect
from harness.containers.images import Fact
from harness.errors import HarnessError

_LOW_DISK_GB = 2.0


def facts() -> Iterator[Fact]:
    """Check Python, disk, engine, network and images. Yield a fact for each; a bad one says what to do about it."""
    yield Fact(name="harness", ok=True, detail=f"{__version__}, Python {sys.version.partition(' ')[0]}")
    yield _disk()
    try:
        with closing(connect()) as engine:
            yield Fact(name="engine", ok=True, detail=engine.version())
            is_open = network_leads_out()
            yield Fact(
                name="network",
                ok=True,
                detail="open, by HARNESS_NETWORK" if is_open else "closed; HARNESS_NETWORK=open opens it",
            )
            yield from images.sources(engine)
    except HarnessError as error:
        yield Fact(name="engine", ok=False, detail=str(error))


def _disk() -> Fact:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    is_enough = free_gb >= _LOW_DISK_GB
    advice = "" if is_enough else f"; runs and images want {_LOW_DISK_GB:g} GB: make room, or run elsewhere"
    return Fact("disk", is_enough, f"{free_gb:.1f} GB free here{advice}")
