"""The settings of a stack, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.containers.app_links import outside_folder
from harness.errors import UsageError
from harness.printable import HIDDEN, is_secret
from harness.project import templates
from harness.project.dependencies import Plan
from harness.project.needs import APP_INSIDE, EffectQuery, Mount, Network, ResultsIn, Service
from harness.records.values import Json
from harness.stack import preparation

_OURS = ("/harness", "/harness-code")
_ADDRESSES = frozenset({"broker_url", "broker_read_url", "broker_write_url", "result_backend"})


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """The settings of a stack."""

    app: str
    """The argument of `celery -A`, such as `scenarios.app`."""
    app_folder: Path = field(default_factory=Path.cwd)
    """The folder that the app is imported from."""
    pythonpath: Sequence[str] = ()
    """More folders that the app imports from, relative to the app folder, such as `src` or `../common`."""
    image: str | None = None
    """The image of the nodes that run the app; None for the session's."""
    build: Plan | None = None
    """The plan of the app's own image, unless `image` names one; None for the session's."""
    workers: int = 1
    options: Sequence[str] | None = None
    """Options of `celery worker`; None takes DEFAULT_OPTIONS of `harness.containers.worker`."""
    entrypoint: Sequence[str] = ()
    """The command that starts a worker in the project's own image, such as `sh -c "celery -A shop worker"`: whatever it
    runs as `celery` is run by the agent. Empty for the harness's own command, with `options` and `queues`."""
    queues: Sequence[str] = ()
    """The queues that the workers consume, unless the options say it; empty for the app's own queues."""
    mailbox: bool = False
    """True for a mailbox. There is one too if a template of `env` asks for it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """More environment variables for all nodes that run the app.

    A value may have the templates of `harness.project.templates`. The folders of PYTHONPATH are relative to the app
    folder, and are added to the harness's own.
    """
    prepare: Sequence[str] = ()
    """Commands that run once, one after another, before the first worker starts."""
    writable: bool | Sequence[str] = False
    """The part of its folder that the app may write to, in a copy that all nodes share: True for all, or some paths."""
    mounts: Sequence[Mount] = ()
    """More files and folders that the nodes see. A host path that is not absolute is relative to the app folder."""
    network: Network = Network.CLOSED
    """The kind of network: does the app reach anything beside this stack?"""
    services: Sequence[Service] = ()
    """The services beside the broker that the app uses, each with a database of the stack's own."""
    results: ResultsIn = ResultsIn.SQLITE
    """The place where the workers store their results."""
    effects: Mapping[str, EffectQuery] = field(default_factory=dict)
    """The queries that find effects in the app's own database. They are named by the kind of the effects, and the key
    of an effect begins with that, such as `order:7`."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    """Celery settings that override the app's own, in every node that runs it. The app is not edited."""
    own_broker: bool = False
    """True for a broker that no other stack uses, so that faults may break it. It takes seconds to start."""
    broker_image: str | None = None
    """The image of its own broker, whose data are kept apart from its container, so that it can be upgraded; None for
    that of the session's broker."""
    small_disk: bool = False
    """True if the data of its own broker are on a small disk, which can be filled; see `harness.faults.FullDisk`."""
    link: bool = False
    """True if workers, beats, the web producer and the producer reach the broker through a link, which can disturb
    their connections; see `harness.containers.tcp_link`."""
    movable_clocks: bool = False
    """True if the clocks of workers and beats can be moved while they run; see `harness.faults.ClockJump`."""
    guest: bool = False
    """True if its vhost is `/` and its user `guest`. A session can have one such stack at a time."""

    def __post_init__(self) -> None:
        """Check the settings. Raises UsageError."""
        if self.workers < 0:
            raise UsageError(f"{self.workers} workers cannot be started; give 0 or more.")
        if not self.app_folder.is_dir():
            raise UsageError(f"{self.app_folder} is no folder, so no app can be imported from it.")
        for name in ("pythonpath", "queues", "prepare", "writable", "entrypoint"):
            if isinstance(given := getattr(self, name), str):
                raise UsageError(f"{name} is {given!r}; give a list, such as [{given!r}].")
        for folder in self.pythonpath:
            outside_folder(self.app_folder, folder)
        for command in self.prepare:
            preparation.words_of(command)
        for path in self.writable_paths or ():
            if path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise UsageError(f"writable names {path!r}; give paths in the app's folder, such as 'media'.")
        for mount in self.mounts:
            self._check(mount)
        self._check_effects()
        self._check_settings()
        self._check_broker()
        templates.check(self.env, "env")

    def _check(self, mount: Mount) -> None:
        if not (self.app_folder / mount.host).exists():
            raise UsageError(f"mounts names {self.app_folder / mount.host}, which does not exist.")
        inside = PurePosixPath(mount.inside)
        if not inside.is_absolute() or ".." in inside.parts or len(inside.parts) == 1:
            raise UsageError(f"mounts has {mount.inside!r} for the inside; give an absolute path, such as '/etc/shop'.")
        if str(inside) == APP_INSIDE or any(inside.is_relative_to(ours) for ours in _OURS):
            raise UsageError(f"mounts has {mount.inside!r} for the inside, which is the harness's own place.")
        if inside.is_relative_to(APP_INSIDE) and self.writable is False:
            below = inside.relative_to(APP_INSIDE)
            if not (self.app_folder / below).exists():
                raise UsageError(
                    f"mounts has {mount.inside!r} for the inside, but the app's folder, which is read-only, has no "
                    f"{below} in whose place it could be: make an empty one, or set writable=True."
                )

    def _check_settings(self) -> None:
        if taken := [name for name in self.settings if name in _ADDRESSES]:
            raise UsageError(f"the setting {taken[0]} cannot be overridden: it is the address of a part of the stack.")

    def _check_broker(self) -> None:
        for name in ("small_disk", "broker_image"):
            if getattr(self, name) and not self.own_broker:
                raise UsageError(f"{name} is for a broker of the stack's own: add own_broker=True.")

    def _check_effects(self) -> None:
        """Raise UsageError if no node can write to the SQLite file of a query, because it is in the app's folder."""
        everything = ("",) if self.writable_paths is None else self.writable_paths
        written = [PurePosixPath(APP_INSIDE, path) for path in everything]
        written += [PurePosixPath(mount.inside) for mount in self.mounts if not mount.read_only]
        for kind, query in self.effects.items():
            inside = query.inside(APP_INSIDE)
            if query.database is None or not inside.is_relative_to(APP_INSIDE):
                continue
            if not any(inside.is_relative_to(path) for path in written):
                path = inside.relative_to(APP_INSIDE)
                raise UsageError(
                    f"effects.{kind} looks into {path} in the app's folder, where nothing may write: add the setting "
                    f'writable = true, or writable = ["{path}"].'
                )

    @property
    def writable_paths(self) -> Sequence[str] | None:
        """The paths in the app's folder that nodes may write to; None if it is all of it."""
        if isinstance(self.writable, bool):
            return None if self.writable else ()
        return self.writable

    def to_json(self) -> dict[str, Json]:
        """Return the settings for run.json. Paths of this machine and secrets are left out."""
        return {
            "app": self.app,
            "pythonpath": list(self.pythonpath),
            "image": self.image,
            "build": None if self.build is None else self.build.source,
            "workers": self.workers,
            "options": None if self.options is None else list(self.options),
            # Its arguments may be secrets.
            "entrypoint": list(self.entrypoint[:1]),
            "queues": list(self.queues),
            "mailbox": self.mailbox,
            "env": sorted(self.env),
            "settings": {name: HIDDEN if is_secret(name) else value for name, value in self.settings.items()},
            # The arguments of a command may be secrets.
            "prepare": [preparation.words_of(command)[0] for command in self.prepare],
            "writable": self.writable if isinstance(self.writable, bool) else list(self.writable),
            "mounts": [mount.inside for mount in self.mounts],
            "network": self.network.value,
            "services": [service.value for service in self.services],
            "own_broker": self.own_broker,
            "broker_image": self.broker_image,
            "small_disk": self.small_disk,
            "movable_clocks": self.movable_clocks,
            "results": self.results.value,
            # A query may have a secret in it.
            "effects": sorted(self.effects),
            "link": self.link,
        }
