"""The worker of tests that are written against pytest-celery: the checks of what they ask for, and its settings."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness.containers.app_node import CODE_INSIDE
from harness.errors import UsageError

BUILD = ("version", "worker_name", "worker_queue", "pytest_celery_pkg")
"""Methods of a container class that are session fixtures as well; pytest-celery builds its image with them."""


def build_fixture(name: str) -> str:
    """Return the name of the session fixture that corresponds to a method of BUILD."""
    return f"default_worker_{name}" if name == "pytest_celery_pkg" else f"default_worker_celery_{name}"


def check(container_cls: Any, built_with: Any, fixtures: Mapping[str, str], ports: Any) -> None:
    """Raise UsageError for settings that would have no effect."""
    if container_cls.version():
        raise UsageError(
            f"{container_cls.__name__}.version() asks for Celery {container_cls.version()}; a worker has the Celery of "
            "its image. Name an image with that version in HARNESS_WORKER_IMAGE, and leave the method out."
        )
    for name, value in fixtures.items():
        if value != getattr(built_with, name)():
            raise UsageError(
                f"the fixture {build_fixture(name)} says {value!r}, and is for an image that pytest-celery builds; "
                "here none is built. A worker's name and queue are methods of default_worker_container_cls."
            )
    if ports:
        raise UsageError(f"default_worker_ports is {ports!r}; a worker of the harness publishes no ports.")


def parsed_command(command: Sequence[str] | str) -> tuple[str, list[str]]:
    """Return the app and the options of ``celery -A app worker ...``. Raises UsageError for any other command."""
    match shlex.split(command) if isinstance(command, str) else list(command):
        case ["celery", "-A" | "--app", app, "worker", *options]:
            return app, options
        case _:
            raise UsageError(f"default_worker_command is {command!r}; give `celery -A <app> worker` and its options.")


def worker_env(given: Mapping[str, str], broker_url: str) -> dict[str, str]:
    """Return the worker's environment, from what pytest-celery made of the clusters and the test's fixtures.

    Raises:
        UsageError: it names another broker than `broker_url`.
    """
    asked = given.get("CELERY_BROKER_URL")
    if asked != broker_url:
        raise UsageError(
            f"default_worker_env has the broker {str(asked).rpartition('@')[2]!r}; here it can be the harness's alone. "
            "Use celery_rabbitmq_broker in celery_broker_cluster, and leave CELERY_BROKER_URL to it."
        )
    path = f"{CODE_INSIDE}:{given.get('PYTHONPATH', '')}"
    # If it has no backend, the worker must have none; the harness would set its own.
    return {"CELERY_RESULT_BACKEND": "", **given, "PYTHONPATH": path}


def get_running_processes_info(columns: list[str] | None = None) -> str:
    """Return pytest-celery's process list as JSON, without psutil, which the node image lacks.

    Its source becomes `utils.py` in the worker, so it imports what it needs.
    """
    import json  # noqa: PLC0415 - see above.
    import os  # noqa: PLC0415 - the same.
    import pwd  # noqa: PLC0415 - the same.
    from pathlib import Path  # noqa: PLC0415 - the same.

    def first(name: str, key: str) -> int:
        lines = Path("/proc", name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    def user(uid: int) -> str:
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)

    boot_s, memory_kb = first("stat", "btime"), first("meminfo", "MemTotal:")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name is in brackets and may contain any character.
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            info = {
                "pid": int(folder.name),
                "name": name,
                "username": user(folder.stat().st_uid),
                "cmdline": [word for word in (folder / "cmdline").read_text().split("\0") if word],
                "cpu_percent": 0.0,  # As psutil at its first call.
                "memory_percent": int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / memory_kb / 10.24,
                "create_time": boot_s + int(fields[19]) / os.sysconf("SC_CLK_TCK"),
            }
        except OSError:
            continue  # It ended meanwhile.
        found.append({column: info[column] for column in columns or info})
    return json.dumps(found)
