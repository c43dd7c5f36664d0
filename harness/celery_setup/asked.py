"""The images, networks and volumes that a test written for pytest-celery asks for beside containers.

None of them is there. Each has a name that its containers come back with.
"""

import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack


class Asking(Protocol):
    """The test that asks, and the fixture that it asks in."""

    fixture: str
    container_cls: Any
    """The class that will wrap the container; None if it is not known."""

    def more_options(self, command: Sequence[str] | str) -> list[str]:
        """Return the options that the harness adds to a worker's command."""

    def stack(self) -> Stack:
        """Return the stack of the test."""

    def folder(self) -> Path:
        """Return a new folder."""


@dataclass(frozen=True, kw_only=True)
class AskedImage:
    """An image that somebody names, or would build. It is not there: only its name and its arguments are looked at."""

    id: str
    buildargs: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its repository's last part, such as `rabbitmq`."""
        return self.id.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()


@dataclass(frozen=True, kw_only=True)
class AskedPart:
    """A network or a volume of a test. Removing it does nothing: the harness removes what it started."""

    name: str
    folder: Path | None = None

    @property
    def id(self) -> str:
        """Its name, which is its id as well."""
        return self.name

    def remove(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Filling:
    """Fills a volume, in place of a container that mounts it."""

    def __init__(self, folder: Path) -> None:
        """Take the volume's folder."""
        self._folder = folder

    def put_archive(self, _inside: str, archive: IO[bytes]) -> None:
        """Write the files of an archive."""
        with tarfile.open(fileobj=archive) as files:
            files.extractall(self._folder, filter="data")

    def remove(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Images:
    """The images of a test: their names alone."""

    def __init__(self, known: dict[str, AskedImage]) -> None:
        """Take the images by id; those that would be built are added."""
        self._known = known

    def build(self, **asked: Any) -> tuple[AskedImage, list[str]]:
        """Remember what would be built."""
        name = asked.get("tag") or asked.get("path") or "image"
        buildargs = {key: str(value) for key, value in (asked.get("buildargs") or {}).items() if value}
        # Two images of one name may differ in their arguments.
        image = AskedImage(id=f"{name}@{len(self._known)}", buildargs=buildargs, tags=(str(name),))
        self._known[image.id] = image
        return image, []

    def pull(self, repository: str, tag: str | None = None, **_: Any) -> AskedImage:
        """Return the image of this name."""
        return AskedImage(id=f"{repository}:{tag}" if tag else repository)

    def get(self, name: str) -> AskedImage:
        """Return the image of this name."""
        return self._known.get(name) or AskedImage(id=name)


class Networks:
    """The networks of a test: all are the harness's own."""

    def __init__(self, session: SharedParts) -> None:
        """Take the session with the network."""
        self._session = session

    def create(self, _name: str, **_: Any) -> AskedPart:
        """Return the harness's network, which all its nodes are on."""
        return AskedPart(name=self._session.network)


class Volumes:
    """The volumes of a test: a folder of this machine for each."""

    def __init__(self, known: dict[str, Path], asking: Callable[[], Asking]) -> None:
        """Take the folders by name, to which new ones are added, and a function that returns who asks."""
        self._known = known
        self._asking = asking

    def create(self, name: str, **_: Any) -> AskedPart:
        """Make a folder that stands for the volume."""
        folder = self._known[name] = self._asking().folder()
        return AskedPart(name=name, folder=folder)
