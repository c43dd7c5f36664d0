"""An app's own image with a real engine: what it has, that it is built once, and that it keeps no secret."""

import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.audit.run_folder import RunFolder
from harness.containers import app_image
from harness.containers.app_image_facts import packages_in
from harness.containers.engine import Engine
from harness.containers.images import LABEL, ours
from harness.errors import ImageError
from harness.project.dependencies import Plan, plan_of
from harness.records.expectation import Expect
from harness.records.moment import Moment
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until
from tests.docker.held_moments import is_there_and_no_further

pytestmark = pytest.mark.docker

REQUIREMENTS = "-r requirements/base.txt\n"
BASE = "celery==5.3.6\nsqlalchemy>=2,<2.1\ntext-unidecode==1.3\ngevent\n"
"""An older Celery and SQLAlchemy than the harness's own, and packages that the node image lacks."""
TASKS = """
from celery import Celery
from text_unidecode import unidecode

app = Celery("own")
app.conf.task_serializer = app.conf.result_serializer = "json"


@app.task(name="plain")
def plain(text):
    return unidecode(text)
"""
SECRET = f"hush-{secrets.token_hex(8)}"


@pytest.fixture(scope="module", autouse=True)
def _access() -> Iterator[None]:
    """Give pip a login, of which the image must not know; nobody answers at its address, and nobody has to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HARNESS_WORKER_IMAGE", raising=False)
        patch.setenv("HARNESS_IMAGES", "bootstrap")
        links = os.environ.get("PIP_FIND_LINKS", "")
        patch.setenv("PIP_FIND_LINKS", f"{links} https://me:{SECRET}@127.0.0.2:9/links/".strip())
        patch.setenv("PIP_RETRIES", "0")
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("own")
    (folder / "requirements").mkdir()
    (folder / "requirements" / "base.txt").write_text(BASE)
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    (folder / "own.py").write_text(TASKS)
    return plan_of(folder)


@pytest.fixture(scope="module")
def image(client: docker.DockerClient, engine: Engine, plan: Plan) -> Iterator[str]:
    tag = app_image.ensure(engine, plan, say=print, rebuild=True)
    yield tag
    client.images.remove(tag, force=True)


def test_it_has_what_the_project_asks_for_and_a_second_start_builds_nothing(
    client: docker.DockerClient, engine: Engine, plan: Plan, image: str
) -> None:
    built, said = client.images.get(image), list[str]()
    assert app_image.ensure(engine, plan, say=said.append) == image
    assert said == [f"app: {image} is present"]
    assert client.images.get(image).id == built.id
    assert built.labels[LABEL] == "app"
    assert image in ours(engine), "`harness clean --images` removes it"
    packages = packages_in(engine, image)
    assert list(packages)[:3] == ["celery", "sqlalchemy", "kombu"]
    assert (packages["celery"], packages["text-unidecode"]) == ("5.3.6", "1.3")
    assert packages["sqlalchemy"].startswith("2.0.")


def test_no_layer_label_or_history_knows_how_the_packages_were_fetched(client: docker.DockerClient, image: str) -> None:
    found = client.images.get(image)
    assert SECRET not in json.dumps([found.attrs, found.history()])
    whole = io.BytesIO(b"".join(found.save()))
    seen: set[str] = set()
    with tarfile.open(fileobj=whole) as outer:
        for member in outer.getmembers():
            file = outer.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            content = file.read()
            assert SECRET.encode() not in content
            if member.name.endswith("layer.tar") or "/blobs/" in f"/{member.name}":
                seen |= _names(content)
    assert any(name.endswith("celery/__init__.py") for name in seen), "the layers were looked into"
    assert not any("harness-build" in name or name.endswith(("pip.conf", "netrc")) for name in seen)


def _names(layer: bytes) -> set[str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            return set(tar.getnames())
    except tarfile.ReadError:
        return set()


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    with SharedParts(print) as session:
        yield session


@pytest.fixture
def _in_the_image(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers run in the image."""
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", image)


@pytest.mark.usefixtures("_in_the_image")
def test_a_worker_of_a_stack_runs_in_it(session: SharedParts, plan: Plan, tmp_path: Path) -> None:
    spec = StackSpec(app="own", app_folder=plan.folder)
    with Stack(session, spec, RunFolder.create(tmp_path, "own")) as stack:
        expect = Expect(result="Zurich")
        sent = [stack.producer.send("plain", kwargs={"text": "Z\u00fcrich"}, expect=expect) for _ in range(3)]
        audit = stack.settle()
    assert all(one.accepted for one in sent)
    assert audit.passed, audit.text()


@pytest.mark.usefixtures("_in_the_image")
def test_a_pool_of_greenlets_holds_one_at_each_moment_and_the_others_go_on(
    session: SharedParts, tmp_path: Path
) -> None:
    options = ("--pool=gevent", "--concurrency=2", "--without-mingle", "--without-gossip", "--prefetch-multiplier=2")
    spec = StackSpec(app="moments", app_folder=Path("tests/docker/apps").absolute(), options=options)
    with Stack(session, spec, RunFolder.create(tmp_path, "gevent")) as stack:
        for moment in (Moment.STARTED, Moment.EFFECT, Moment.RETURNED, Moment.STORED):
            hold_one_of_two(stack, moment)
        audit = stack.settle()
    assert audit.passed, audit.text()


def hold_one_of_two(stack: Stack, moment: Moment) -> None:
    """Hold a task, and let another one run meanwhile."""
    # The one of the moment before may only now come by this one.
    with stack.hold(None, moment, task=f"held-{moment}") as hold:
        held = stack.producer.send("moments.commit", [f"held-{moment}"], task_id=f"held-{moment}")
        hold.wait()
        other = stack.producer.send("moments.commit", [f"other-{moment}"])
        wait_until(lambda: stack.ledger.has_ended(other.task), what="the other has ended", timeout_s=20)
        is_there_and_no_further(stack, moment, held.task, key=f"held-{moment}")
        assert not hold.is_over


def test_a_package_that_does_not_exist_is_named_with_the_file_that_asks_for_it(engine: Engine, tmp_path: Path) -> None:
    name = f"no-such-package-{secrets.token_hex(4)}"
    (tmp_path / "requirements.txt").write_text(f"celery==5.3.6\n{name}==3\n")
    before = ours(engine)
    with pytest.raises(ImageError, match=rf"requirements\.txt:2 asks for {name}==3, .* for Python 3\.13") as told:
        app_image.ensure(engine, plan_of(tmp_path), say=print)
    assert SECRET not in str(told.value)
    assert ours(engine) == before
