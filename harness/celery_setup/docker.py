"""The Docker client that pytest-celery's containers come from: what they ask for, the harness starts.

pytest-celery, and every project that defines containers beside it, asks pytest-docker-tools for images, networks,
volumes and containers, and that asks one client. This one builds and pulls nothing: a worker, a RabbitMQ and a Redis
are nodes of the harness, with the command, the environment, the files and the ports that were asked for.
"""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.celery_setup.asked import AskedImage, Asking, Filling, Images, Networks, Volumes
from harness.celery_setup.container import ServedContainer
from harness.celery_setup.image import image_for
from harness.celery_setup.servers import KeptServers
from harness.celery_setup.worker import needed_version, parsed_command, stock_command, worker_env
from harness.containers.app_node import AppNode
from harness.containers.node import Node
from harness.containers.ownership import RUN_LABEL
from harness.containers.rabbitmq import HOSTNAME
from harness.containers.worker import Worker
from harness.errors import StartError, UsageError
from harness.project.needs import APP_INSIDE, Mount
from harness.records import journal
from harness.records.event import Kind
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack

PACKAGES_INSIDE = "/harness-packages"
_PROCESSORS = ("cpu_period", "cpu_quota", "cpuset_cpus")
_WITHOUT_EFFECT = frozenset({"detach", "labels", "name", "network", "remove", "auto_remove"})
"""What a container is asked for and need not get: it is a node of the harness, which has a name and an end."""


class ContainerClient:
    """The part of docker-py's client that pytest-docker-tools uses."""

    def __init__(self, session: SharedParts, asking: Callable[[], Asking]) -> None:
        """Take the session whose parts are used, and a function that returns who asks at present."""
        self._session = session
        self._asking = asking
        self._images: dict[str, AskedImage] = {}
        self._volumes: dict[str, Path] = {}
        self._kept = KeptServers(session)
        self._taken: tuple[Stack | None, list[str]] = (None, [])
        """The last stack, and the names of the nodes that its test has."""
        self._said: set[str] = set()
        self.images = Images(self._images)
        self.networks = Networks(session)
        self.volumes = Volumes(self._volumes, asking)
        self.containers = self

    def close(self) -> None:
        """Remove the servers beside the session's own broker."""
        self._kept.close()

    # -------------------------------------------------------------------------------------------- containers

    def create(self, *, volumes: Mapping[str, Any], **_: Any) -> Filling:
        """Return what fills a volume with files, in place of the container that pytest-docker-tools would use."""
        (name,) = volumes
        return Filling(self._volumes[name])

    def run(self, image: str, command: Sequence[str] | str | None = None, **asked: Any) -> ServedContainer:
        """Start what an image and a command stand for.

        Raises:
            UsageError: the harness has no such node, or cannot give it what is asked for.
            StartError: it does not become ready.
        """
        named = self._images.get(image, AskedImage(id=image))
        if "rabbitmq" in named.name:
            return self._broker(named, asked)
        if named.name in {"redis", "valkey"}:
            return self._redis(command, asked)
        if command is None and named.buildargs.get("CELERY_WORKER_NAME"):
            command = stock_command(named.buildargs)
        if command is not None and "celery" in str(command):
            return self._worker(named, command, asked)
        raise UsageError(
            f"the fixture {self._asking().fixture} starts the image {image!r}, and harness.celery_setup has RabbitMQ, "
            "Redis and Celery workers alone. Leave `-p harness.celery_setup` out for the tests that use it."
        )

    def worker(
        self,
        command: Sequence[str] | str,
        *,
        more: Sequence[str] = (),
        env: Mapping[str, Any],
        app_folder: Path,
        mounts: Sequence[Mount] = (),
        processors: Mapping[str, int | str] | None = None,
        version: str = "",
        image: str = "",
    ) -> ServedContainer:
        """Start a worker, and return it when it is ready.

        Args:
            command: of `celery worker`.
            more: options to add to it.
            env: its environment, as pytest-celery made it.
            app_folder: the files in its working directory.
            mounts: more folders that it sees.
            processors: see `NodeSpec`.
            version: the version of Celery that it has to have; empty for any.
            image: the image that was asked for, for an error.

        Raises:
            UsageError: it cannot have what is asked for.
            ProjectError: the harness does not work with this version of Celery.
            ImageError: an image with this version cannot be built.
            StartError: it does not become ready.
        """
        stack, session = self._asking().stack(), self._session
        app, options = parsed_command(command)
        image_of_worker, packages = image_for(
            session,
            stack.spec.image,
            version,
            source=f"the fixture {self._asking().fixture}",
            folder=app_folder,
            say_once=self._say_once,
        )
        node = AppNode(
            image=image_of_worker,
            app=app,
            app_folder=app_folder,
            run_folder=stack.folder.path,
            network=session.network,
            broker_url=stack.login.amqp_url_inside,
            env={**stack.spec.env, **worker_env(env, self._hosts(stack), PACKAGES_INSIDE if packages else None)},
            labels={RUN_LABEL: stack.folder.path.name},
            mounts=(*mounts, *([Mount(host=packages, inside=PACKAGES_INSIDE)] if packages else [])),
            processors=processors or {},
        )
        worker = Worker(session.engine, node, name=f"worker-{len(stack.workers) + 1}", options=[*options, *more])
        stack.workers.append(worker)
        try:
            stack.add(worker)
        except StartError as error:
            raise StartError(f"{error}\n{self._whose_image(image, image_of_worker)}" if image else str(error)) from None
        check_version(stack, worker.name, version, self._asking().fixture)
        return self._served(worker)

    def _worker(self, image: AskedImage, command: Sequence[str] | str, asked: dict[str, Any]) -> ServedContainer:
        asking = self._asking()
        folder, mounts = self._mounts(asked.pop("volumes", None) or {})
        processors = {name: value for name in _PROCESSORS if (value := asked.pop(name, None)) is not None}
        if ports := asked.pop("ports", None):
            raise UsageError(f"{asking.fixture} asks for the ports {ports!r}; a worker of the harness publishes none.")
        env = asked.pop("environment", None) or {}
        self._check(asked)
        return self.worker(
            command,
            more=asking.more_options(command),
            env=env,
            app_folder=folder,
            mounts=mounts,
            processors=processors,
            version=needed_version(asking.container_cls) or image.buildargs.get("CELERY_VERSION", ""),
            image=image.id,
        )

    def _broker(self, image: AskedImage, asked: dict[str, Any]) -> ServedContainer:
        stack = self._asking().stack()
        since_t = time.time()
        self._check(asked, "ports", "environment")
        tag = image.id.rpartition(":")[2]
        if tag[:1].isdigit():
            self._say_once(f"{self._asking().fixture} asks for {image.id}; it gets {stack.broker.spec.image}")
        taken = self._taken_in(stack)
        if stack.broker.name not in taken:
            return self._served(stack.broker, since_t=since_t)
        return self._served(self._kept.broker(taken), since_t=since_t)

    def _redis(self, command: Sequence[str] | str | None, asked: dict[str, Any]) -> ServedContainer:
        since_t = time.time()
        _, mounts = self._mounts(asked.pop("volumes", None) or {})
        words = shlex.split(command) if isinstance(command, str) else list(command or ["redis-server"])
        # pytest-docker-tools makes None of an empty word.
        words = [word or "" for word in words]
        # A configuration file that is not there cannot be read; the server's own settings serve instead.
        seen = {mount.inside for mount in mounts}
        words = [word for word in words if not word.startswith("/") or word in seen]
        self._check(asked, "ports", "environment")
        return self._served(self._kept.redis(words, mounts, self._taken_in(self._asking().stack())), since_t=since_t)

    # -------------------------------------------------------------------------------------------- how it is done

    def _served(self, node: Node, *, since_t: float | None = None) -> ServedContainer:
        self._taken_in(self._asking().stack()).append(node.name)
        return ServedContainer(node, self._session.engine.native(node.container), since_t=since_t)

    def _taken_in(self, stack: Stack) -> list[str]:
        if self._taken[0] is not stack:
            self._taken = (stack, [])
        return self._taken[1]

    def _hosts(self, stack: Stack) -> set[str]:
        """Return the host names of the test's nodes, which its workers may use."""
        return {HOSTNAME, *self._taken_in(stack)}

    def _mounts(self, volumes: Mapping[str, Any]) -> tuple[Path, list[Mount]]:
        """Return the folder that is mounted as `/app`, and the other mounts, of folders that are there."""
        app, mounts = None, []
        for name, volume in volumes.items():
            inside = volume["bind"] if isinstance(volume, Mapping) else volume
            host = self._volumes.get(name, Path(name))
            if inside == APP_INSIDE:
                app = host
            elif host.exists():
                mounts.append(Mount(host=host, inside=inside))
        return app or self._asking().folder(), mounts

    def _check(self, asked: Mapping[str, Any], *allowed: str) -> None:
        """Raise UsageError for an option that would have no effect."""
        unknown = sorted(
            name for name, value in asked.items() if value and name not in _WITHOUT_EFFECT and name not in allowed
        )
        if unknown:
            raise UsageError(
                f"the fixture {self._asking().fixture} gives its container {' and '.join(unknown)}, which a node of "
                "the harness cannot have. Leave that out, or leave `-p harness.celery_setup` out for its tests."
            )

    def _whose_image(self, asked: str, had: str) -> str:
        return (
            f"The fixture {self._asking().fixture} asks for the image {asked}. It was not built: the worker ran from "
            f"{had}. If it lacks something, build the image and name it in HARNESS_WORKER_IMAGE."
        )

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._session.say(line)


def check_version(stack: Stack, worker: str, wanted: str, fixture: str) -> None:
    """Raise UsageError if a worker that runs has another version of Celery than `wanted`."""
    if not wanted:
        return
    said = [event for event in journal.read(stack.folder.journal) if event.kind is Kind.UP and event.node == worker]
    for event in said:
        if (version := event.data["versions"]["celery"]) != wanted:
            raise UsageError(
                f"the fixture {fixture} asks for Celery {wanted}, and its worker has {version}, the version of its "
                "image. Name an image with the other version in HARNESS_WORKER_IMAGE."
            )
