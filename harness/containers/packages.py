"""Fetching the ingredients of an image: Debian's packages with mmdebstrap, and Python's wheels with pip.

Nothing here knows an image or asks the engine. Downloads that can be reused stay in a cache folder of the user; a lock
keeps the user's other processes from fetching the same at the same time.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.wait import wait_until

Say = Callable[[str], None]
"""Gets one line of progress. It may be called from another thread during a step."""

SUITE = "trixie"
"""The release of Debian that the packages are from, unless another one is named."""
TESTING = "forky"
"""The release of Debian after that. It is still being made."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""The architectures with packages: Docker's name, and the name in wheels."""
KEEP_SMALL = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
"""The files that dpkg leaves out."""
COMMAND_TIMEOUT_S = 1200
"""The longest time of one command, such as a bootstrap or a build, in seconds."""

_PYTHON_VERSION = "3.13"
# The minor version of the oldest C library that a base may have: Debian 12's. Wheels for 2.17 and up work.
_GLIBC_MINORS = range(36, 16, -1)
_END_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 2 * COMMAND_TIMEOUT_S
_APT_LOCK_WAIT_S = 300
_BEAT_S = 8
_LAST_LINES = 15


# ------------------------------------------------------------------------------------------------ packages


@contextlib.contextmanager
def bootstrapped(
    packages: Sequence[str], *, architecture: str, name: str, otherwise: str, say: Say, suite: str = SUITE
) -> Iterator[Path]:
    """Make a minimal system with `packages`. Yield an archive of its files, which is deleted at the end.

    Args:
        packages: names of Debian packages; their dependencies are added.
        architecture: Docker's name of it.
        name: its purpose, in words for `say`.
        otherwise: see `find_mmdebstrap`.
        say: gets the progress.
        suite: the release of Debian that they are from.

    Raises:
        ImageError: there is no mmdebstrap, or it failed.
    """
    program = find_mmdebstrap(say, otherwise=otherwise)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="bootstrap-") as folder:
        tree = Path(folder, "base.tar")
        command = [
            program,
            "--variant=minbase",
            f"--architectures={architecture}",
            *(f"--dpkgopt={option}" for option in KEEP_SMALL),
            # The list of a release that is being made is good for a week. A mirror that is a snapshot would not do
            # then. Its signature is checked all the same.
            *(['--aptopt=Acquire::Check-Valid-Until "false"'] if suite == TESTING else []),
            f"--include={','.join(packages)}",
            suite,
            str(tree),
            *_mirror(),
        ]
        _run(command, what=f"{name}: bootstrapping Debian {suite} with {', '.join(packages)}", say=say)
        yield tree


def find_mmdebstrap(say: Say, *, otherwise: str) -> str:
    """Return the path of mmdebstrap; install it first if it is missing and we are root.

    Args:
        say: gets the progress of its installation.
        otherwise: what else helps, for the error's message.

    Raises:
        ImageError: it is missing and cannot be installed; the message names the packages.
    """
    if path := shutil.which("mmdebstrap"):
        return path
    apt_get = shutil.which("apt-get")
    if os.geteuid() != 0 or apt_get is None:
        raise ImageError(
            f"No registry gives the base, and to make one mmdebstrap is missing. {how_to_get_mmdebstrap(otherwise)}"
        )
    packages = ["mmdebstrap", "debian-archive-keyring"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    # Another program may be installing at this moment, as a fresh machine does by itself.
    wait = ["-o", f"DPkg::Lock::Timeout={_APT_LOCK_WAIT_S}"]
    _run([apt_get, *wait, "update"], what="mmdebstrap is missing: updating the package lists", say=say)
    install = [apt_get, *wait, "install", "--yes", "--no-install-recommends", *packages]
    _run(install, what=f"installing {' and '.join(packages)}", say=say, environment=environment)
    if path := shutil.which("mmdebstrap"):
        return path
    raise ImageError("apt-get installed mmdebstrap, and it is still not on PATH.")


def how_to_get_mmdebstrap(otherwise: str) -> str:
    """Return a sentence on how to install it on this machine; without apt-get, also what else helps."""
    if shutil.which("apt-get"):
        return "As root: apt-get install mmdebstrap uidmap debian-archive-keyring"
    return f"Install the package mmdebstrap, or {otherwise}."


def _mirror() -> list[str]:
    """Return the mirror of this machine's own apt, if it is a Debian; otherwise nothing, and mmdebstrap picks one."""
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        return []
    columns = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Label: Debian"]
    listing = subprocess.run([apt_get, *columns], capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command.
    # It may also name a CD-ROM, which mmdebstrap could not reach.
    return [uri for uri in listing.stdout.split() if uri.startswith("http")][:1]


# ------------------------------------------------------------------------------------------------ wheels


def platforms(architecture: str) -> list[str]:
    """Return the platforms whose wheels an image for `architecture` (Docker's name) can use, as pip names them."""
    machine = MACHINES[architecture]
    return [*(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS), f"manylinux2014_{machine}"]


def fetch_wheels(pins: Sequence[str], *, architecture: str, name: str, say: Say) -> Path:
    """Return a folder with exactly the wheels of `pins`, downloaded unless it exists.

    Args:
        pins: requirements with their versions, including all dependencies.
        architecture: Docker's name of it.
        name: their purpose, in words for `say`.
        say: gets the progress.

    Raises:
        ImageError: pip failed, or there is no folder to keep them in.
        WaitTimeout: another process has held the lock for too long.
    """
    folder = cache_folder() / f"wheels-{digest([_PYTHON_VERSION, architecture, *pins])}"
    with locked("wheels", say):
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="wheels-partial-") as partial:
            command = [
                sys.executable,
                *("-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
                *("--implementation", "cp", "--python-version", _PYTHON_VERSION),
                *(option for platform in platforms(architecture) for option in ("--platform", platform)),
                *("--dest", f"{partial}/wheels"),
                *pins,
            ]
            _run(command, what=f"{name}: downloading {len(pins)} wheels", say=say)
            # A folder of this name is complete, because it is renamed only when it is.
            Path(partial, "wheels").rename(folder)
    return folder


def unpacked_wheels(pins: Sequence[str], *, architecture: str, name: str, say: Say) -> Path:
    """Return a folder that the node image's Python can import exactly `pins` from.

    The arguments and errors are those of `fetch_wheels`. ImageError as well if a wheel cannot be unpacked.
    """
    wheels = fetch_wheels(pins, architecture=architecture, name=name, say=say)
    folder = wheels.with_name(wheels.name.replace("wheels-", "packages-", 1))
    with locked(folder.name, say):
        if folder.is_dir():
            return folder
        try:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="packages-partial-") as partial:
                for wheel in wheels.iterdir():
                    with zipfile.ZipFile(wheel) as archive:
                        archive.extractall(f"{partial}/packages")
                # A folder of this name is complete, because it is renamed only when it is.
                Path(partial, "packages").rename(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise ImageError(f"{name}: the wheels in {wheels} cannot be unpacked: {error}.") from error
    return folder


# ------------------------------------------------------------------------------------------------ how it is done


def digest(ingredients: Sequence[str]) -> str:
    """Return a short name for a sequence of ingredients: other ones, or another order, give another name."""
    return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:12]


@contextlib.contextmanager
def step(say: Say, what: str) -> Iterator[None]:
    """Report that `what` begins, every few seconds that it goes on, and how long it took."""
    start_s = time.monotonic()
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(_BEAT_S):
            say(f"{what}: {time.monotonic() - start_s:.0f} s so far")

    say(f"{what} ...")
    beat = threading.Thread(target=go_on, daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
    say(f"{what}: done in {time.monotonic() - start_s:.1f} s")


def _run(command: Sequence[str], *, what: str, say: Say, environment: Mapping[str, str] | None = None) -> None:
    """Run a program to its end, and end it on a time-out or an error here. Raises ImageError."""
    env = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
    with (
        step(say, what),
        subprocess.Popen(  # noqa: S603 - each command is put together in this module.
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            output, _ = process.communicate(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _end(process)
            raise ImageError(f"{what}: not done within {COMMAND_TIMEOUT_S} s, given up.") from None
        except BaseException:
            _end(process)
            raise
        if process.returncode != 0:
            name, lines = Path(command[0]).name, output.decode(errors="replace").splitlines()
            raise ImageError(f"{what}: {name} failed with exit code {process.returncode}.\n{tail(lines)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # On SIGTERM, mmdebstrap removes its temporary root file system.
    process.terminate()
    try:
        process.communicate(timeout=_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def tail(lines: Sequence[str]) -> str:
    """Return the last non-empty lines of a program's output, without colours."""
    plain = (re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines)
    return "\n".join([line for line in plain if line][-_LAST_LINES:])


def cache_folder() -> Path:
    """Return a folder of the user that outlives the process.

    Raises:
        ImageError: there is none that can be written.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder = home / "celery-harness"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "writable").touch()
    except (OSError, RuntimeError) as error:
        # A build account may have no home, or none that it can write to.
        raise ImageError(f"No folder to cache in: {error}. Set XDG_CACHE_HOME to one that can be written.") from None
    return folder


@contextlib.contextmanager
def locked(name: str, say: Say) -> Iterator[None]:
    """Hold the lock of this name among the user's processes.

    Raises:
        ImageError: there is no cache folder for the lock.
        WaitTimeout: another process has held it for 40 minutes.
    """
    with Path(cache_folder(), f"{name}.lock").open("w") as file:

        def attempt() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not attempt():
            say(f"waiting for another process that is at it: {name}")
            wait_until(attempt, what=f"the lock {file.name}", timeout_s=_LOCK_TIMEOUT_S)
        # The system releases the lock when the file is closed, also when the process is killed.
        yield
