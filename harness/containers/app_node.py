"""A container that runs a user's app: the common settings of such nodes, and their readiness."""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness.containers.engine import Engine, NodeSpec
from harness.containers.movable_clock import MovableClock
from harness.containers.node import Node
from harness.errors import StartError, UsageError
from harness.project.needs import APP_INSIDE, Mount
from harness.records.event import Event, Kind
from harness.records.journal import Tail
from harness.records.values import Json

CODE_INSIDE = "/harness-code"
RUN_INSIDE = "/harness/run"
# Three slashes belong to a URL, the fourth to the absolute path.
RESULTS_URL_INSIDE = f"db+sqlite:///{RUN_INSIDE}/results.sqlite3"
APP_DATABASE_URL_INSIDE = f"sqlite:///{RUN_INSIDE}/app/app.sqlite3"

# The last two are SQLite's words.
_CANNOT_WRITE = re.compile(r"Read-only file system|unable to open database file|attempt to write a readonly database")


@dataclass(frozen=True, kw_only=True)
class AppNode:
    """The settings of every container that runs the app."""

    image: str
    """The node image, or any with Python, Celery and SQLAlchemy."""
    app: str
    """The argument of ``celery -A``."""
    app_folder: Path
    """The folder that the app is imported from, and the working directory inside."""
    is_writable: bool = False
    """True if nodes may write to `app_folder`, because it is a copy of their own."""
    pythonpath: Sequence[str] = ()
    """More folders that the app imports from, relative to the app folder."""
    mounts: Sequence[Mount] = ()
    """The files and folders that the node sees beside the app folder, also below it."""
    run_folder: Path
    """The run's folder, with `journal` in it; the node writes there."""
    network: str
    """The network of the broker."""
    broker_url: str
    """The broker's URL inside `network`."""
    results_url: str = RESULTS_URL_INSIDE
    """The URL, inside the container, of the database where Celery stores results."""
    env: Mapping[str, str] = field(default_factory=dict)
    """More environment variables; they override those that the harness sets."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More labels of the container."""
    processors: Mapping[str, int | str] = field(default_factory=dict)
    """Limits of its processors; see `NodeSpec`."""
    movable_clocks: bool = False
    """True if the clock of each node that runs Celery can be moved while it runs."""

    def spec(
        self,
        name: str,
        command: Sequence[str],
        *,
        module: str | None = "agent",
        env: Mapping[str, str] | None = None,
        ports: Sequence[int] = (),
    ) -> NodeSpec:
        """Return the specification of one node: a harness module as its command, with code, app and run folder mounted.

        Args:
            name: the node's name, unique within its stack.
            command: the module's arguments; for the agent those of `celery`, such as ``("-A", "app", "worker")``.
            module: the module of `harness.inside`; None if the command is a program of its own.
            env: what this node needs; the app's own environment overrides it.
            ports: ports inside that are published on loopback.
        """
        broker = self.env.get("CELERY_BROKER_URL", self.broker_url)
        own = dict(env or {})
        # A beat may have another clock of its own.
        if self.movable_clocks and module == "agent" and "LD_PRELOAD" not in own:
            clock = MovableClock(self.run_folder, name)
            clock.create()
            own |= clock.env(RUN_INSIDE)
        return NodeSpec(
            name=name,
            image=self.image,
            command=(*(inside_command(module) if module else ()), *command),
            env=inside_env(name)
            | {
                # Celery refuses to read pickled messages as root, and takes every group without a name for root's.
                # In here, no user has any right of root.
                "C_FORCE_ROOT": "1",
                "CELERY_BROKER_URL": broker,
                # An app may have one broker to read from, and another to write to.
                "CELERY_BROKER_READ_URL": broker,
                "CELERY_BROKER_WRITE_URL": broker,
                "CELERY_RESULT_BACKEND": self.results_url,
                # A database for the app's own data; it is in `app` in the run folder.
                "APP_DATABASE_URL": APP_DATABASE_URL_INSIDE,
            }
            | own
            | dict(self.env)
            | {"PYTHONPATH": self._pythonpath()},
            mounts=(
                *inside_mounts(self.run_folder),
                Mount(host=self.app_folder, inside=APP_INSIDE, read_only=not self.is_writable),
                *self.mounts,
            ),
            ports=tuple(ports),
            labels=dict(self.labels),
            working_dir=APP_INSIDE,
            read_only=True,
            processors=self.processors,
        )

    def _pythonpath(self) -> str:
        """Return the folders to import from: the harness's own, the app's, then those that the app's user named."""
        named = [*self.pythonpath, *self.env.get("PYTHONPATH", "").split(":")]
        return ":".join((CODE_INSIDE, APP_INSIDE, *(inside_app(folder) for folder in named if folder)))


def with_advice(error: StartError) -> StartError:
    """Return the error, with what helps if the app's last words are that it cannot write."""
    if not _CANNOT_WRITE.search(str(error)):
        return error
    return StartError(
        f"{error}\nAn app cannot write to its own folder. With writable=True, nodes write to a copy of it; with "
        "writable=['media', 'logs'], only these paths are copied."
    )


def overriding(settings: Mapping[str, Json]) -> dict[str, str]:
    """Return the environment in which Celery settings override the app's own; empty if there are none.

    Raises:
        UsageError: they are not JSON.
    """
    if not settings:
        return {}
    try:
        return {"HARNESS_SETTINGS": json.dumps(dict(settings))}
    except (TypeError, ValueError) as error:
        raise UsageError(f"the Celery settings to override are not JSON: {error}") from error


def inside_app(path: str) -> str:
    """Return the absolute path, inside a node, of a path that is relative to the app folder."""
    return posixpath.normpath(posixpath.join(APP_INSIDE, path))


def inside_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of `harness.inside`."""
    # A path, because a Python that is too old has to say so: it knows no `-P`, and could not import the harness. Nor
    # does a folder of the app that is named `harness` come first.
    return ("python", f"{CODE_INSIDE}/harness/inside/start.py", module)


def inside_env(name: str) -> dict[str, str]:
    """Return the environment that every module of `harness.inside` reads."""
    return {
        "PYTHONPATH": CODE_INSIDE,
        # Without it, an image that is not ours may buffer a node's output until it is killed.
        "PYTHONUNBUFFERED": "1",
        "HARNESS_RUN": RUN_INSIDE,
        "HARNESS_JOURNAL": f"{RUN_INSIDE}/journal",
        "HARNESS_NODE": name,
        # The caller's uid has no entry in the image's list of users, and so no home.
        "HOME": "/tmp",  # noqa: S108 - inside the container, which has one user.
    }


def inside_mounts(run_folder: Path) -> tuple[Mount, ...]:
    """Return the mounts of the harness's own code, read-only, and of the run folder."""
    code = Path(harness.__file__).parent
    return (
        Mount(host=code, inside=f"{CODE_INSIDE}/{code.name}"),
        Mount(host=run_folder, inside=RUN_INSIDE, read_only=False),
    )


class JournalingNode(Node):
    """A node that is ready when its journal has a line of a certain kind."""

    def __init__(self, engine: Engine, spec: NodeSpec, app: AppNode, *, ready: Kind) -> None:
        """Create the node without starting it; `ready` is the kind of that line."""
        super().__init__(engine, spec, network=app.network, missing=self._lacks)
        self._ready = ready
        self._journal = app.run_folder / "journal"
        self._old: set[Path] = set()
        self._tails: dict[Path, Tail] = {}
        self._is_ready = False

    def start(self) -> None:
        """Start it, or start it again; from now on only the journal of this start counts."""
        # Every process opens its own file, so the files that exist now are from an earlier start.
        self._old, self._tails, self._is_ready = set(self._files()), {}, False
        super().start()

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return as soon as it is ready. Raises StartError, with what helps if the app wanted to write."""
        try:
            super().wait_ready(timeout_s)
        except StartError as error:
            raise with_advice(error) from None

    def said(self, kind: Kind) -> list[Event]:
        """Return the lines of a kind that its journal has up to now, those of an earlier start included."""
        return [event for path in self._files() for event in Tail(path).read() if event.kind is kind]

    def _files(self) -> list[Path]:
        return sorted(self._journal.glob(f"{self.name}.*.jsonl"))

    def _lacks(self) -> str | None:
        for path in self._files():
            if path not in self._old:
                tail = self._tails.setdefault(path, Tail(path))
                self._is_ready |= any(event.kind is self._ready for event in tail.read())
        if self._is_ready:
            return None
        return f"`{self._ready.value}` in its journal" if self._tails else "a journal"
