"""A worker: the real `celery worker` of somebody's app, under the agent, on one network with the broker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import harness
from harness.containers.engine import Engine, MountSpec, NodeSpec
from harness.containers.node import Node
from harness.records.event import Kind
from harness.records.journal import Tail

CODE_INSIDE = "/harness-code"
APP_INSIDE = "/app"
RUN_INSIDE = "/harness/run"
RESULTS_URL_INSIDE = f"db+sqlite:///{RUN_INSIDE}/results.sqlite3"
APP_DATABASE_URL_INSIDE = f"sqlite:///{RUN_INSIDE}/app/app.sqlite3"
# Three slashes belong to the URL, the fourth to the absolute path.

DEFAULT_OPTIONS = ("--concurrency=2", "--without-gossip", "--without-mingle", "--loglevel=info")
"""Mingling alone costs a second at the start; and one worker has nobody to gossip with."""


def agent_spec(
    *,
    name: str,
    image: str,
    command: Sequence[str],
    app_folder: Path,
    run_folder: Path,
    broker_url: str,
    module: str = "agent",
    env: Mapping[str, str] | None = None,
    ports: Sequence[int] = (),
    labels: Mapping[str, str] | None = None,
) -> NodeSpec:
    """What every container that knows the app has in common: one of our modules as its command, code, app, run folder.

    Args:
        name: the node's name, unique within its stack.
        image: the node image, or any with Python, Celery and SQLAlchemy.
        command: the module's arguments; for the agent what it becomes, such as ``("-A", "app", "worker")``.
        app_folder: the folder that the app is imported from; read-only inside, and the working directory.
        run_folder: the run's folder, with `journal` in it; the node writes there.
        broker_url: as seen from inside the network.
        module: the module of `harness.inside`.
        env: more environment; it wins over all that the harness sets.
        ports: ports inside that are published on loopback.
        labels: more labels.
    """
    broker = (env or {}).get("CELERY_BROKER_URL", broker_url)
    return NodeSpec(
        name=name,
        image=image,
        command=(*inside_command(module), *command),
        env=inside_env(name)
        | {
            "PYTHONPATH": f"{CODE_INSIDE}:{APP_INSIDE}",
            "CELERY_BROKER_URL": broker,
            # An app may have one broker to read from, and one to write to.
            "CELERY_BROKER_READ_URL": broker,
            "CELERY_BROKER_WRITE_URL": broker,
            "CELERY_RESULT_BACKEND": RESULTS_URL_INSIDE,
            # A place for what the app itself keeps; it is `app` in the run folder.
            "APP_DATABASE_URL": APP_DATABASE_URL_INSIDE,
        }
        | dict(env or {}),
        mounts=(*inside_mounts(run_folder), MountSpec(host=app_folder, inside=APP_INSIDE)),
        ports=tuple(ports),
        labels=dict(labels or {}),
        working_dir=APP_INSIDE,
        read_only=True,
    )


def inside_command(module: str) -> tuple[str, ...]:
    """How a module of `harness.inside` is run. `-P`: a folder of the app's named `harness` must not come first."""
    return ("python", "-P", "-m", f"harness.inside.{module}")


def inside_env(name: str) -> dict[str, str]:
    """The environment that every module of `harness.inside` reads."""
    return {
        "PYTHONPATH": CODE_INSIDE,
        # An image that is not ours may keep back what a node says until it is killed.
        "PYTHONUNBUFFERED": "1",
        "HARNESS_RUN": RUN_INSIDE,
        "HARNESS_JOURNAL": f"{RUN_INSIDE}/journal",
        "HARNESS_NODE": name,
        # The caller's uid has no entry in the image's list of users, and so no home.
        "HOME": "/tmp",  # noqa: S108 - inside the container, which has one user.
    }


def inside_mounts(run_folder: Path) -> tuple[MountSpec, ...]:
    """The harness's own code, read-only, and the run folder."""
    code = Path(harness.__file__).parent
    return (
        MountSpec(host=code, inside=f"{CODE_INSIDE}/{code.name}"),
        MountSpec(host=run_folder, inside=RUN_INSIDE, read_only=False),
    )


class JournalingNode(Node):
    """A node that is ready when its journal says so."""

    def __init__(self, engine: Engine, spec: NodeSpec, *, run_folder: Path, network: str | None = None) -> None:
        """Nothing is started yet; `run_folder` is the one that the node sees."""
        super().__init__(engine, spec, network=network, missing=self._lacks)
        self._journal = run_folder / "journal"
        self._old: set[Path] = set()
        self._tails: dict[Path, Tail] = {}
        self._is_ready = False

    def start(self) -> None:
        """Start it, or start it again; from now on only the journal of this start counts."""
        # Every process opens a file of its own, so what is there by now is by an earlier one.
        self._old, self._tails, self._is_ready = set(self._files()), {}, False
        super().start()

    def _files(self) -> list[Path]:
        return sorted(self._journal.glob(f"{self.name}.*.jsonl"))

    def _lacks(self) -> str | None:
        for path in self._files():
            if path not in self._old:
                tail = self._tails.setdefault(path, Tail(path))
                self._is_ready |= any(event.kind is Kind.READY for event in tail.read())
        if self._is_ready:
            return None
        return "`ready` in its journal" if self._tails else "a journal"


class Worker(JournalingNode):
    """`celery worker`, ready when it consumes."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        image: str,
        app: str,
        app_folder: Path,
        run_folder: Path,
        network: str,
        broker_url: str,
        options: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            engine: what runs it.
            name: the node's name, unique within its stack; Celery sees ``<name>@<name>``.
            image: the node image, or any with Python, Celery and SQLAlchemy.
            app: what ``celery -A`` gets.
            app_folder: the folder that `app` is imported from.
            run_folder: the run's folder, with `journal` in it.
            network: where the broker is.
            broker_url: as seen from inside `network`.
            options: any options of `celery worker`, instead of DEFAULT_OPTIONS.
            env: more environment; it wins over all that the harness sets.
            labels: more labels.
        """
        chosen = DEFAULT_OPTIONS if options is None else options
        spec = agent_spec(
            name=name,
            image=image,
            command=("-A", app, "worker", f"--hostname={name}@%h", *chosen),
            app_folder=app_folder,
            run_folder=run_folder,
            broker_url=broker_url,
            env=env,
            labels=labels,
        )
        super().__init__(engine, spec, run_folder=run_folder, network=network)
