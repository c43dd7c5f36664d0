"""A container that runs a user's app: the common settings of such nodes, and their readiness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness.containers.engine import Engine, MountSpec, NodeSpec
from harness.containers.node import Node
from harness.records.event import Kind
from harness.records.journal import Tail

CODE_INSIDE = "/harness-code"
APP_INSIDE = "/app"
RUN_INSIDE = "/harness/run"
# Three slashes belong to a URL, the fourth to the absolute path.
RESULTS_URL_INSIDE = f"db+sqlite:///{RUN_INSIDE}/results.sqlite3"
APP_DATABASE_URL_INSIDE = f"sqlite:///{RUN_INSIDE}/app/app.sqlite3"


@dataclass(frozen=True, kw_only=True)
class AppNode:
    """The settings of every container that runs the app."""

    image: str
    """The node image, or any with Python, Celery and SQLAlchemy."""
    app: str
    """The argument of ``celery -A``."""
    app_folder: Path
    """The folder that the app is imported from; read-only inside, and the working directory."""
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

    def spec(
        self,
        name: str,
        command: Sequence[str],
        *,
        module: str = "agent",
        env: Mapping[str, str] | None = None,
        ports: Sequence[int] = (),
    ) -> NodeSpec:
        """Return the specification of one node: a harness module as its command, with code, app and run folder mounted.

        Args:
            name: the node's name, unique within its stack.
            command: the module's arguments; for the agent those of `celery`, such as ``("-A", "app", "worker")``.
            module: the module of `harness.inside`.
            env: what this node needs; the app's own environment overrides it.
            ports: ports inside that are published on loopback.
        """
        broker = self.env.get("CELERY_BROKER_URL", self.broker_url)
        return NodeSpec(
            name=name,
            image=self.image,
            command=(*inside_command(module), *command),
            env=inside_env(name)
            | {
                "PYTHONPATH": f"{CODE_INSIDE}:{APP_INSIDE}",
                "CELERY_BROKER_URL": broker,
                # An app may have one broker to read from, and another to write to.
                "CELERY_BROKER_READ_URL": broker,
                "CELERY_BROKER_WRITE_URL": broker,
                "CELERY_RESULT_BACKEND": self.results_url,
                # A database for the app's own data; it is in `app` in the run folder.
                "APP_DATABASE_URL": APP_DATABASE_URL_INSIDE,
            }
            | dict(env or {})
            | dict(self.env),
            mounts=(*inside_mounts(self.run_folder), MountSpec(host=self.app_folder, inside=APP_INSIDE)),
            ports=tuple(ports),
            labels=dict(self.labels),
            working_dir=APP_INSIDE,
            read_only=True,
        )


def inside_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of `harness.inside`."""
    # -P: a folder of the app that is named `harness` must not come first.
    return ("python", "-P", "-m", f"harness.inside.{module}")


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


def inside_mounts(run_folder: Path) -> tuple[MountSpec, ...]:
    """Return the mounts of the harness's own code, read-only, and of the run folder."""
    code = Path(harness.__file__).parent
    return (
        MountSpec(host=code, inside=f"{CODE_INSIDE}/{code.name}"),
        MountSpec(host=run_folder, inside=RUN_INSIDE, read_only=False),
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
