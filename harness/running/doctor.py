"""The checks of the command `doctor`: the environment that a run needs."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from harness import __version__
from harness.containers import images
from harness.containers.engine import network_leads_out
from harness.containers.engine_choice import connect
from harness.containers.images import Fact
from harness.errors import HarnessError
from harness.project.celery_settings import is_module
from harness.project.needs import Mount
from harness.project.risks import Outlook
from harness.project.schema import KEYS
from harness.project.settings import COMMAND_LINE, load
from harness.project.source_files import Sources

_LOW_DISK_GB = 2.0


def facts(project: Path, app: str | None = None) -> Iterator[Fact]:
    """Check Python, disk, settings, the app's own settings, engine, network and images. Yield a fact for each.

    A bad fact says what to do about it.

    Args:
        project: the folder whose settings are shown.
        app: the Celery app, as `celery -A` takes it; otherwise that of the settings, if they name one.
    """
    yield Fact(name="harness", ok=True, detail=f"{__version__}, Python {sys.version.partition(' ')[0]}")
    yield _disk()
    yield from _settings(project, app)
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


def _settings(project: Path, app: str | None) -> Iterator[Fact]:
    """Yield each setting that somebody has said, with where it was said; the app's folder in any case."""
    try:
        settings = load(project).over(COMMAND_LINE, {"app": app})
    except HarnessError as error:
        yield Fact(name="settings", ok=False, detail=str(error))
        return
    for key in KEYS:
        if key == "folder" or key in settings.sources:
            detail = f"{_shown(getattr(settings, key))} ({settings.source(key)})"
            yield Fact(name=f"setting {key}", ok=True, detail=detail)
    if settings.app:
        yield from _risks(settings.app, settings.folder)


def _risks(app: str, folder: Path) -> Iterator[Fact]:
    """Yield what may lose or double the app's tasks, as far as its files tell. Nothing of the app is run."""
    try:
        sources = Sources(folder)
        outlook = Outlook.of(sources)
    except HarnessError as error:
        yield Fact(name="app", ok=False, detail=str(error))
        return
    # What is in such a file is not known, and may be the setting that is missed below.
    yield from (Fact(name="app", ok=None, detail=note) for note in sources.notes)
    name = app.partition(":")[0]
    if not any(is_module(path, name) for path in sources.files if path.suffix == ".py"):
        detail = f"no file in {folder} is the module {name}: correct the app, or name its folder with --app-dir"
        yield Fact(name="app", ok=False, detail=detail)
        return
    for risk in outlook.risks:
        shown = f" Shown by `{risk.shown_by}`." if risk.shown_by else ""
        detail = f"{risk.seen}: {risk.cost}. Change: {risk.remedy}.{shown}"
        yield Fact(name=f"risk {risk.setting}", ok=None, detail=detail)
    if outlook.unknown:
        detail = f"nobody knows these before the app runs: {', '.join(outlook.unknown)}"
        yield Fact(name="settings of the app", ok=None, detail=detail)


def _shown(value: object) -> str:
    """Return a setting's value as text. Of an environment, only the names: values may be secrets."""
    if isinstance(value, Mapping | tuple):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, Mount):
        return f"{value.host}:{value.inside}:{'ro' if value.read_only else 'rw'}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _disk() -> Fact:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    is_enough = free_gb >= _LOW_DISK_GB
    advice = "" if is_enough else f"; runs and images want {_LOW_DISK_GB:g} GB: make room, or run elsewhere"
    return Fact("disk", is_enough, f"{free_gb:.1f} GB free here{advice}")
