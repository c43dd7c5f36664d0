"""A PostgreSQL server of one's own, for as long as a test needs it: on loopback, and with a password.

The programs come with Debian's package `postgresql`. They do not run as root, so that root starts them as the user
`postgres`, which comes with the package too.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from harness.wait import wait_until

_INSTALLED = Path("/usr/lib/postgresql")
_USER = "harness"
_DATABASE = "postgres"
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that answers."""

    port: int
    password: str
    process: subprocess.Popen[bytes]

    def url(self, password: str | None = None) -> str:
        """Its URL for SQLAlchemy, with the right password or another one."""
        return f"postgresql+psycopg://{_USER}:{password or self.password}@127.0.0.1:{self.port}/{_DATABASE}"

    def connect(self) -> psycopg.Connection:
        """Return a connection that commits each statement."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_USER,
            password=self.password,
            dbname=_DATABASE,
            connect_timeout=5,
            autocommit=True,
        )


def missing() -> str | None:
    """Why there can be no server; None if there can."""
    if _programs() is None:
        return "PostgreSQL's initdb and postgres are not installed: install Debian's package postgresql."
    if os.getuid() == 0 and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no user `postgres` to run it as."
    return None


@contextmanager
def postgres() -> Iterator[Server]:
    """Start a new, empty server; stop it and remove its files at the end, also if this process dies."""
    programs = _programs()
    if programs is None:
        raise FileNotFoundError(missing())
    # Another user has to get there, which pytest's own folders do not allow.
    root = Path(tempfile.mkdtemp(prefix="celery-harness-postgres-"))
    try:
        password, port = secrets.token_urlsafe(18), _free_port()
        _init(programs, root, password)
        yield from _run(programs, root, password, port)
    finally:
        shutil.rmtree(root)


def _init(programs: Path, root: Path, password: str) -> None:
    secret = root / "password"
    secret.write_text(password + "\n")
    if (user := _unprivileged()) is not None:
        for path in (root, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
    options = ["--auth=scram-sha-256", f"--username={_USER}", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
    command = [str(programs / "initdb"), "--pgdata", str(root / "data"), "--no-sync", *options]
    done = subprocess.run(_as_user(command), capture_output=True, text=True, check=False, cwd=root, timeout=120)
    secret.unlink()
    if done.returncode:
        raise RuntimeError(f"initdb ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


def _run(programs: Path, root: Path, password: str, port: int) -> Iterator[Server]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # Nothing here outlives a crash of the machine.
        "fsync": "off",
        # Neither UTC nor the zone of any app.
        "timezone": "Asia/Kolkata",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [str(programs / "postgres"), "-D", str(root / "data"), *options]
    log = root / "log"
    with log.open("wb") as out:
        # To a server, SIGINT means that it disconnects everybody and ends in good order.
        process = subprocess.Popen(_as_user(command, die_by="INT"), stdout=out, stderr=subprocess.STDOUT, cwd=root)
    server = Server(port=port, password=password, process=process)

    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"postgres ended with {process.returncode}: {log.read_text()[-2000:]}")
        with suppress(psycopg.OperationalError):
            server.connect().close()
            return True
        return False

    try:
        wait_until(answers, what="PostgreSQL answers", timeout_s=_START_TIMEOUT_S, last_seen=log.read_text)
        yield server
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # A test may have stopped it with SIGSTOP.
    for number in (signal.SIGCONT, signal.SIGINT):
        process.send_signal(number)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The least that lets it take its own processes down as well.
        process.send_signal(signal.SIGQUIT)
        process.wait(_STOP_TIMEOUT_S)


def _programs() -> Path | None:
    """Return the folder of the newest version that is installed."""
    found = [path.parent for path in _INSTALLED.glob("*/bin/initdb") if (path.parent / "postgres").exists()]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def _unprivileged() -> pwd.struct_passwd | None:
    """Who runs the server; None for whoever runs the test."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


def _as_user(command: Sequence[str], die_by: str = "KILL") -> list[str]:
    """Return the command for a user who may run it; the command ends when this process ends, in any way."""
    change = ["setpriv", "--pdeathsig", die_by]
    if (user := _unprivileged()) is not None:
        change += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    return [*change, "--", *command]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
