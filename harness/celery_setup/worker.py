"""The worker of tests that are written for pytest-celery: its command, its settings, and what it can tell."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.containers.app_node import CODE_INSIDE
from harness.errors import UsageError


def needed_version(container_cls: Any) -> str:
    """Return the version of Celery that a container class asks for; empty if it takes any."""
    return str(container_cls.version() or "") if hasattr(container_cls, "version") else ""


def stock_command(buildargs: Mapping[str, str]) -> list[str]:
    """Return the command of an image that pytest-celery would build with these arguments."""
    return [
        *("celery", "-A", "app", "worker"),
        f"--loglevel={buildargs.get('CELERY_LOG_LEVEL', 'INFO')}",
        *("-n", f"{buildargs['CELERY_WORKER_NAME']}@%h"),
        *("-Q", buildargs.get("CELERY_WORKER_QUEUE", "celery")),
    ]


def parsed_command(command: Sequence[str] | str) -> tuple[str, list[str]]:
    """Return the app and the options of ``celery -A app worker ...``. Raises UsageError for any other command."""
    match shlex.split(command) if isinstance(command, str) else list(command):
        case ["celery", "-A" | "--app", app, "worker", *options]:
            return app, options
        case _:
            raise UsageError(f"default_worker_command is {command!r}; give `celery -A <app> worker` and its options.")


def worker_env(given: Mapping[str, Any], hosts: Collection[str], packages: str | None = None) -> dict[str, str]:
    """Return the worker's environment, from what pytest-celery made of the clusters and the test's fixtures.

    Args:
        given: what pytest-celery made.
        hosts: the names of the test's nodes on their network.
        packages: a folder inside that Python imports from after all others.

    Raises:
        UsageError: the broker is none of `hosts`.
    """
    for url in str(given.get("CELERY_BROKER_URL", "")).split(";"):
        scheme, _, rest = url.partition("://")
        host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
        # A worker whose test asks for no broker has one in its own memory, and nobody can send to it.
        if url and scheme != "memory" and host not in hosts:
            raise UsageError(
                f"default_worker_env has the broker {rest.rpartition('@')[2]!r}; here it can be the harness's alone. "
                "Use celery_rabbitmq_broker in celery_broker_cluster, and leave CELERY_BROKER_URL to it."
            )
    path = ":".join(part for part in (CODE_INSIDE, str(given.get("PYTHONPATH", "")), packages) if part)
    # If it has no backend, the worker must have none; the harness would set its own.
    env = {"CELERY_RESULT_BACKEND": "", **given, "PYTHONPATH": path}
    return {name: str(value) for name, value in env.items()}


def write_app(content: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files that pytest-celery would put into its volume. Return the folder."""
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return folder


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
