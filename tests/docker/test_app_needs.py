"""What an app needs that was not written for the harness: on a real stack, and with the app's folder as it was."""

import smtplib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from harness import Expect
from harness.audit.run_folder import RunFolder
from harness.containers.mailbox import SMTP_PORT
from harness.containers.ownership import RUN_LABEL
from harness.errors import StartError
from harness.project.needs import Mount, Network
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

pytestmark = pytest.mark.docker

SHOP = """
    import os, pathlib, socket, sqlite3

    from celery import Celery

    import common, side

    HERE = pathlib.Path(__file__).parent
    app = Celery("shop")
    app.conf.task_default_queue = "shop"
    # As root, and as a group that the image does not know, Celery refuses this.
    app.conf.accept_content = ["json", "pickle"]
    app.conf.beat_schedule = {"seldom": {"task": "shop.order", "schedule": 3600.0}}

    @app.task(name="shop.order")
    def order(number):
        with sqlite3.connect(HERE / "db.sqlite3") as database:
            database.execute("INSERT INTO orders VALUES (?)", (number,))
        (HERE / "media").mkdir(exist_ok=True)
        (HERE / "media" / f"{number}.txt").write_text("thanks")
        return [common.NAME, side.NAME, pathlib.Path("/etc/shop.conf").read_text(), os.environ["DATABASE_URL"]]

    @app.task(name="shop.note")
    def note(name):
        (HERE / "logs" / name).write_text("noted")

    @app.task(name="shop.reach")
    def reach(host, port):
        try:
            socket.create_connection((host, port), 2).close()
        except OSError:
            return False
        return True

    @app.task(name="shop.reach_mailbox")
    def reach_mailbox():
        return reach(os.environ["EMAIL_HOST"], int(os.environ["EMAIL_PORT"]))
"""
MANAGE = """
    import pathlib, smtplib, os, sqlite3, sys

    if "fail" in sys.argv:
        sys.exit("the migration is broken")
    sqlite3.connect(pathlib.Path(__file__).with_name("db.sqlite3")).execute("CREATE TABLE orders (number)")
    smtplib.SMTP(os.environ["EMAIL_HOST"], int(os.environ["EMAIL_PORT"])).quit()
    print("migrated")
"""
MIGRATE = "python manage.py migrate"
OPTIONS = ["--concurrency=1", "--pidfile=shop.pid", "--logfile=logs/shop.log", "--beat", "--schedule=beat.db"]


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    """Return the session that all tests share."""
    return _harness_session


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an app that imports from, and links to, what is beside it."""
    project = tmp_path_factory.mktemp("project")
    files = {
        "common/__init__.py": "NAME = 'common'",
        "shop.conf": "conf",
        "back/src/side.py": "NAME = 'side'",
        "back/shop.py": SHOP,
        "back/manage.py": MANAGE,
        "back/logs/.gitkeep": "",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(textwrap.dedent(text))
    (project / "back" / "common").symlink_to("../common")
    return project / "back"


def spec(app_folder: Path, **more: Any) -> StackSpec:
    """Return the settings that this app needs in any case."""
    return StackSpec(
        app="shop",
        app_folder=app_folder,
        queues=["shop"],
        env={
            "PYTHONPATH": "src",
            "EMAIL_HOST": "{mailbox.host}",
            "EMAIL_PORT": "{mailbox.port}",
            "DATABASE_URL": "{database.url}",
        },
        mounts=[Mount(host=Path("../shop.conf"), inside="/etc/shop.conf")],
        **{"options": ["--concurrency=1"], "prepare": [MIGRATE], **more},
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: b"" if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def closed(
    _harness_session: SharedParts, app_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Yield a stack whose app writes to its folder wherever it likes."""
    folder, before = RunFolder.create(tmp_path_factory.mktemp("runs"), "closed"), contents(app_folder)
    with Stack(_harness_session, spec(app_folder, options=OPTIONS, writable=True), folder) as stack:
        yield stack
        assert (folder.path / "copy").is_dir()
    assert not (folder.path / "copy").exists()
    assert contents(app_folder) == before


@pytest.fixture(scope="module")
def opened(
    _harness_session: SharedParts,
    app_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    client: docker.DockerClient,
) -> Iterator[Stack]:
    """Yield a stack that leads out, with an image of its own, and that may write to its database alone."""
    client.images.get(_harness_session.worker_image).tag("shop-of-a-test", "1")
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "opened")
    more: dict[str, Any] = {"writable": ["db.sqlite3"], "network": Network.OPEN, "image": "shop-of-a-test:1"}
    try:
        with Stack(_harness_session, spec(app_folder, **more), folder) as stack:
            yield stack
    finally:
        client.images.remove("shop-of-a-test:1")


FOUND = Expect(result=["common", "side", "conf", "sqlite:////harness/run/app/app.sqlite3"])


def test_an_unedited_app_finds_what_it_needs_and_writes_where_it_likes(closed: Stack) -> None:
    closed.producer.send("shop.order", [7], queue="shop", expect=FOUND)
    closed.producer.send("shop.note", ["seven"], queue="shop", expect=Expect())
    audit = closed.settle()
    assert audit.passed, audit.text()
    written = {path.name for path in (closed.folder.path / "copy").rglob("*")}
    assert {"db.sqlite3", "7.txt", "seven", "shop.pid", "shop.log", "beat.db"} <= written
    assert (closed.folder.logs / "prepare-1.log").read_text() == "migrated\n"


def test_where_some_paths_are_named_new_files_can_be_beside_them_and_other_folders_stay_read_only(
    opened: Stack,
) -> None:
    opened.producer.send("shop.order", [7], queue="shop", expect=FOUND)
    opened.producer.send("shop.note", ["seven"], queue="shop", expect=Expect(state="FAILURE", error="OSError"))
    audit = opened.settle()
    assert audit.passed, audit.text()


@pytest.mark.parametrize(("name", "reached"), [("closed", False), ("opened", True)])
def test_an_app_reaches_the_world_only_if_its_network_is_open_and_its_stack_in_any_case(
    request: pytest.FixtureRequest, beyond: tuple[int, list[str]], name: str, *, reached: bool
) -> None:
    stack: Stack = request.getfixturevalue(name)
    port, addresses = beyond
    for address in addresses:
        stack.producer.send("shop.reach", [address, port], queue="shop", expect=Expect(result=reached))
    stack.producer.send("shop.reach", ["broker", 5672], queue="shop", expect=Expect(result=True))
    stack.producer.send("shop.reach_mailbox", queue="shop", expect=Expect(result=True))
    audit = stack.settle()
    assert audit.passed, audit.text()


def test_ports_of_an_open_stack_are_on_loopback_as_ever(opened: Stack) -> None:
    host, port = opened.mailbox.container.host_port(SMTP_PORT)
    with smtplib.SMTP(host, port, timeout=10) as client:
        assert (host, client.noop()[0]) == ("127.0.0.1", 250)


def test_an_app_runs_in_the_image_that_it_names(opened: Stack, client: docker.DockerClient) -> None:
    assert client.containers.get(opened.workers[0].container.id).attrs["Config"]["Image"] == "shop-of-a-test:1"


def test_an_app_that_cannot_be_prepared_starts_no_worker_and_leaves_its_folder_as_it_was(
    session: SharedParts, app_folder: Path, tmp_path: Path, client: docker.DockerClient
) -> None:
    folder, before = RunFolder.create(tmp_path, "broken"), contents(app_folder)
    settings = spec(app_folder, writable=True, prepare=[MIGRATE, "python manage.py fail"])
    reason = r"`python manage.py fail`, .* exited with 1 \(prepare-2.log\)(.|\n)*the migration is broken$"
    with pytest.raises(StartError, match=reason), Stack(session, settings, folder):
        pass
    assert not list(folder.journal.glob("worker*"))
    assert contents(app_folder) == before
    assert not (folder.path / "copy").exists()
    assert client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={folder.path.name}"}) == []
