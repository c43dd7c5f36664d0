"""Building images with a real engine, and pulling their bases from a real registry on loopback."""

import contextlib
import io
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import amqp
import docker
import pytest
import requests
from amqp.exceptions import AMQPError

from harness.containers import docker_registry
from harness.containers.engine import LOOPBACK, Engine, NodeSpec
from harness.containers.image_recipes import Image, Source, plan_image
from harness.containers.images import LABEL, ensure, ours, sources
from harness.errors import ImageError
from harness.wait import wait_until

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
TEST_LABEL = "celery-harness.test"

# What the official broker has and a bootstrapped one has not. Its entry point and its configuration would each keep
# the broker from ever being ready, so they must not be used.
OFFICIAL_BROKER = r"""
FROM {base}
RUN mv /usr/lib/rabbitmq/lib/rabbitmq_server-* /opt/rabbitmq \
    && rm -rf /usr/lib/rabbitmq /usr/sbin/rabbitmq* \
    && mkdir -p /etc/rabbitmq/conf.d \
    && echo 'listeners.tcp.default = 5699' > /etc/rabbitmq/conf.d/10-defaults.conf \
    && printf '#!/bin/sh\necho "the entry point was used" && exit 1\n' > /usr/local/bin/docker-entrypoint.sh \
    && chmod +x /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/rabbitmq/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV RABBITMQ_DATA_DIR=/var/lib/rabbitmq
VOLUME /var/lib/rabbitmq
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["rabbitmq-server"]
"""
# The official Python is the one in /usr/local/bin, and comes without libfaketime. This one cannot even fetch it.
OFFICIAL_PYTHON = r"""
FROM {base}
RUN ln -s /usr/bin/python3.13 /usr/local/bin/python3 \
    && rm -rf /usr/bin/python3 /usr/lib/*/faketime /etc/apt/sources.list /etc/apt/sources.list.d/*
CMD ["python3"]
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_IMAGES", "HARNESS_REGISTRY", "HARNESS_RABBITMQ_IMAGE", "HARNESS_WORKER_IMAGE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a build context for this test alone, whose broker image is unique and quick to build."""
    folder = tmp_path / "docker"
    shutil.copytree(REPOSITORY / "docker", folder)
    shutil.copy(REPOSITORY / "constraints.txt", folder)
    (folder / "rabbitmq.Dockerfile").write_text(
        f"ARG BASE\nFROM ${{BASE}}\nLABEL {TEST_LABEL}={secrets.token_hex(8)}\n"
    )
    return folder


@pytest.fixture
def _removed_afterwards(client: docker.DockerClient, engine: Engine) -> Iterator[None]:
    """Whatever image the test makes is removed; bases stay."""
    before = set(ours(engine))
    yield
    for tag in set(ours(engine)) - before:
        if "/base-" not in tag:
            client.images.remove(tag, force=True)
    # A build that fails leaves its layers behind without a name.
    for image in client.images.list(filters={"dangling": True, "label": TEST_LABEL}):
        client.images.remove(cast("str", image.id), force=True)


@pytest.mark.parametrize("which", Image)
def test_a_second_start_finds_the_image_and_builds_nothing(
    client: docker.DockerClient, engine: Engine, which: Image, said: list[str]
) -> None:
    tag = ensure(engine, which, say=print)
    built = client.images.get(tag)
    assert ensure(engine, which, say=said.append) == tag
    assert said == [f"{which}: {tag} is present"]
    assert client.images.get(tag).id == built.id
    assert built.labels[LABEL] == which
    assert tag in ours(engine)
    assert [fact.detail for fact in sources(engine) if fact.name == f"image {which}" and fact.ok] == [f"{tag}, present"]


@pytest.mark.usefixtures("_removed_afterwards")
def test_an_edited_dockerfile_is_built_again_on_the_same_base(
    client: docker.DockerClient, engine: Engine, context: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "bootstrap")
    first = ensure(engine, Image.RABBITMQ, say=print, context=context)
    with (context / "rabbitmq.Dockerfile").open("a") as dockerfile:
        dockerfile.write("LABEL edited=yes\n")
    second = ensure(engine, Image.RABBITMQ, say=said.append, context=context)
    assert second != first
    assert client.images.get(second).labels["edited"] == "yes"
    assert "edited" not in client.images.get(first).labels
    assert any("building" in line for line in said)
    assert not any("bootstrapping" in line for line in said)


@pytest.mark.usefixtures("_removed_afterwards")
def test_of_two_at_once_one_builds_and_the_other_waits_for_it(
    engine: Engine, context: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "bootstrap")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(ensure, engine, Image.RABBITMQ, say=said.append, context=context) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert len([line for line in said if "building" in line and line.endswith("...")]) == 1
    assert len([line for line in said if "another process has built it" in line]) == 1


@pytest.mark.usefixtures("_removed_afterwards")
def test_a_failed_build_ends_with_what_the_build_said(
    engine: Engine, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "bootstrap")
    with (context / "rabbitmq.Dockerfile").open("a") as dockerfile:
        dockerfile.write("RUN echo this is the reason && exit 3\n")
    with pytest.raises(ImageError, match=r"code: 3(.|\n)*\nthis is the reason"):
        ensure(engine, Image.RABBITMQ, say=print, context=context)


def test_an_image_of_ones_own_is_used_as_it_is(
    client: docker.DockerClient, engine: Engine, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"own-{secrets.token_hex(4)}:of-the-user"
    client.images.get(ensure(engine, Image.NODE, say=print)).tag(own)
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", own)
    try:
        assert ensure(engine, Image.NODE, say=said.append) == own
        assert own not in ours(engine)
    finally:
        client.images.remove(own)
    assert said == [f"node: {own} is present (from HARNESS_WORKER_IMAGE)"]


# ------------------------------------------------------------------------------------------------ registries


@pytest.fixture
def closed_registry() -> str:
    """Return an address that refuses connections."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return f"{LOOPBACK}:{server.getsockname()[1]}"


@pytest.fixture
def silent_registry() -> Iterator[str]:
    """Yield an address that accepts connections and never sends anything."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield f"{LOOPBACK}:{server.getsockname()[1]}"


def test_where_only_a_pull_is_allowed_and_nothing_answers_it_says_what_to_do(
    engine: Engine, closed_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "pull")
    monkeypatch.setenv("HARNESS_REGISTRY", closed_registry)
    with pytest.raises(ImageError, match=f"{closed_registry}/rabbitmq.* cannot be pulled: .*refused.*docker load"):
        ensure(engine, Image.RABBITMQ, say=print)


def test_a_silent_registry_is_given_up(engine: Engine, silent_registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "pull")
    monkeypatch.setenv("HARNESS_REGISTRY", silent_registry)
    assert docker_registry._REGISTRY_TIMEOUT_S <= 10  # noqa: SLF001 - a start must not hang for longer than that.
    monkeypatch.setattr(docker_registry, "_REGISTRY_TIMEOUT_S", 1)
    with pytest.raises(ImageError, match="no answer for 1 s"):
        ensure(engine, Image.RABBITMQ, say=print)


def test_an_own_image_that_is_nowhere_names_the_variable(
    engine: Engine, closed_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", f"{closed_registry}/own:1")
    with pytest.raises(ImageError, match=r"HARNESS_WORKER_IMAGE names .*/own:1, which is neither present nor"):
        ensure(engine, Image.NODE, say=print)


@pytest.mark.usefixtures("_removed_afterwards")
def test_where_no_registry_answers_the_base_is_made_from_packages(
    engine: Engine, context: Path, closed_registry: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_REGISTRY", closed_registry)
    tag = ensure(engine, Image.RABBITMQ, say=said.append, context=context)
    assert tag.startswith("celery-harness/rabbitmq:bootstrap-")
    assert any(closed_registry in line and "refused" in line and "from packages" in line for line in said)


@pytest.fixture(scope="module")
def registry(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of an empty registry on loopback."""
    folder = tmp_path_factory.mktemp("registry")
    try:
        program = shutil.which("docker-registry") or _unpacked_registry(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"The Debian package docker-registry cannot be had: {error}")
    with socket.create_server((LOOPBACK, 0)) as server:
        address = f"{LOOPBACK}:{server.getsockname()[1]}"
    settings = folder / "config.yml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([program, "serve", settings], stdout=log, stderr=log) as it,
    ):
        try:
            wait_until(lambda: _answers(address), what="the registry", timeout_s=20)
            yield address
        finally:
            it.terminate()
            for image in client.api.images(filters={"reference": f"{address}/*"}):
                for tag in image["RepoTags"]:
                    client.images.remove(tag, force=True)


def _unpacked_registry(folder: Path) -> str:
    """Unpack the registry from its package, and return the program; installing it would start a service."""

    def run(*command: str) -> None:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    try:
        run("apt-get", "download", "docker-registry")
    except subprocess.CalledProcessError:
        # A fresh machine has no package lists yet.
        run("apt-get", "update")
        run("apt-get", "download", "docker-registry")
    run("dpkg-deb", "--extract", *map(str, folder.glob("*.deb")), "unpacked")
    return str(folder / "unpacked/usr/bin/docker-registry")


def _answers(address: str) -> bool:
    try:
        return requests.get(f"http://{address}/v2/", timeout=1).ok
    except requests.ConnectionError:
        return False


def publish(client: docker.DockerClient, which: Image, dockerfile: str, registry: str) -> None:
    """Put an image that is like the official base into the registry, and leave nothing of it in the engine."""
    architecture = client.version()["Arch"]
    context = REPOSITORY / "docker"
    bootstrapped = plan_image(which, Source.BOOTSTRAP, architecture=architecture, context=context).base
    official = f"{registry}/{plan_image(which, Source.PULL, architecture=architecture, context=context).base}"
    try:
        client.images.build(fileobj=io.BytesIO(dockerfile.format(base=bootstrapped).encode()), tag=official, rm=True)
        pushed = client.images.push(official)
        assert "error" not in pushed, pushed
    finally:
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.remove(official, force=True)


@pytest.fixture
def _nothing_runs_on(engine: Engine) -> Iterator[None]:
    """Remove what the test started before its images are removed."""
    yield
    engine.remove_mine()


def pulled(
    client: docker.DockerClient,
    engine: Engine,
    which: Image,
    dockerfile: str,
    registry: str,
    *,
    said: list[str],
    patch: pytest.MonkeyPatch,
) -> str:
    """Build the image from a pulled base that has the official one's layout, and return its tag."""
    patch.setenv("HARNESS_IMAGES", "bootstrap")
    ensure(engine, which, say=print)
    publish(client, which, dockerfile, registry)
    patch.setenv("HARNESS_IMAGES", "pull")
    patch.setenv("HARNESS_REGISTRY", registry)
    tag = ensure(engine, which, say=said.append)
    assert tag.startswith(f"celery-harness/{which}:pull-")
    assert said[0].startswith(f"pulling {registry}/")
    return tag


@pytest.mark.usefixtures("_removed_afterwards", "_nothing_runs_on")
def test_a_broker_on_the_official_base_becomes_ready(
    client: docker.DockerClient, engine: Engine, registry: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pulled(client, engine, Image.RABBITMQ, OFFICIAL_BROKER, registry, said=said, patch=monkeypatch)
    login = {"RABBITMQ_DEFAULT_USER": "admin", "RABBITMQ_DEFAULT_PASS": secrets.token_hex(8)}
    broker = engine.run(NodeSpec(name="broker", image=image, env=login, ports=(5672, 15672), user=None))
    host, port = broker.host_port(5672)

    def handshake(password: str) -> bool:
        address = f"{host}:{port}"
        with amqp.Connection(address, userid="admin", password=password, connect_timeout=2) as connection:
            return bool(connection.connected)

    def is_ready() -> bool:
        try:
            return handshake(login["RABBITMQ_DEFAULT_PASS"])
        except (OSError, AMQPError):
            return False

    wait_until(is_ready, what="the broker", timeout_s=60, interval_s=0.2, last_seen=lambda: broker.logs(30))
    with pytest.raises(AMQPError):
        handshake("not the password")
    management = "http://{}:{}/api/whoami".format(*broker.host_port(15672))
    assert (
        requests.get(management, auth=("admin", login["RABBITMQ_DEFAULT_PASS"]), timeout=10).json()["name"] == "admin"
    )


@pytest.mark.usefixtures("_removed_afterwards", "_nothing_runs_on")
def test_celery_runs_on_the_official_python_and_the_missing_library_is_told(
    client: docker.DockerClient, engine: Engine, registry: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pulled(client, engine, Image.NODE, OFFICIAL_PYTHON, registry, said=said, patch=monkeypatch)
    assert any("no libfaketime" in line for line in said)
    node = engine.run(NodeSpec(name="node", image=image, command=("sleep", "60"), user="4711:4711"))
    inside = client.containers.get(node.id)
    code, version = inside.exec_run(["celery", "--version"])
    pins = plan_image(Image.NODE, Source.PULL, architecture="amd64", context=REPOSITORY / "docker").pins
    assert isinstance(version, bytes)
    assert code == 0, version
    assert f"celery=={version.split()[0].decode()}" in pins
    _, python = inside.exec_run(["python", "-c", "import sys; print(sys.prefix, sys.base_prefix)"])
    assert isinstance(python, bytes)
    assert python.split()[0] == b"/opt/venv"
