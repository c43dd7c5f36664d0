"""What Docker is told of a node, which keeps the node from harming its machine."""

import os

import pytest

from harness.containers.docker_options import Host, options_of
from harness.containers.engine import NodeSpec
from harness.errors import UsageError

SPEC = NodeSpec(name="node", image="image")


def test_a_volume_has_its_place_beside_the_mounts() -> None:
    spec = NodeSpec(name="broker", image="image", volumes={"/data": "kept"})
    assert options_of(spec, Host())["mounts"] == [{"Target": "/data", "Source": "kept", "Type": "volume"}]


def test_a_node_runs_as_the_caller() -> None:
    assert options_of(SPEC, Host())["user"] == f"{os.getuid()}:{os.getgid()}"


def test_under_a_rootless_engine_the_caller_is_root() -> None:
    assert options_of(SPEC, Host(security=frozenset({"rootless"})))["user"] == "0:0"


@pytest.mark.parametrize("security", [frozenset[str](), frozenset({"rootless"})])
def test_a_node_can_run_as_the_images_own_user(security: frozenset[str]) -> None:
    assert "user" not in options_of(NodeSpec(name="node", image="image", user=None), Host(security=security))


def test_selinux_is_told_to_let_mounts_be_read_and_nobody_else_is_told_anything() -> None:
    assert "label=disable" in options_of(SPEC, Host(security=frozenset({"selinux"})))["security_opt"]
    assert options_of(SPEC, Host(security=frozenset({"seccomp"})))["security_opt"] == ["no-new-privileges"]


def test_a_node_has_no_rights_of_root_and_may_not_gain_any() -> None:
    options = options_of(SPEC, Host())
    assert (options["cap_drop"], options["security_opt"]) == (["ALL"], ["no-new-privileges"])
    assert "cap_add" not in options


@pytest.mark.parametrize(
    ("user", "user_of_image", "steps_down"),
    [(None, "root", True), (None, "0:0", True), (None, "rabbitmq", False), ("caller", "root", False)],
)
def test_only_an_image_that_starts_as_root_may_become_another_user(
    user: str | None, user_of_image: str, *, steps_down: bool
) -> None:
    options = options_of(NodeSpec(name="node", image="image", user=user), Host(), user_of_image=user_of_image)
    assert ("SETUID" in options.get("cap_add", [])) is steps_down


@pytest.mark.parametrize(
    ("said", "total_bytes", "limit_bytes"),
    [(None, 8_000_000_000, 4_000_000_000), ("", 8_000_000_000, 4_000_000_000), ("500", 8_000_000_000, 500_000_000)],
)
def test_a_node_gets_half_of_the_memory_or_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, said: str | None, total_bytes: int, limit_bytes: int
) -> None:
    if said is not None:
        monkeypatch.setenv("HARNESS_MEMORY_MB", said)
    options = options_of(SPEC, Host.from_info({"MemTotal": total_bytes}))
    assert options["mem_limit"] == options["memswap_limit"] == limit_bytes
    assert options["pids_limit"] == 4096


@pytest.mark.parametrize("said", ["2g", "-1", "0", "63", "1e3", "much", "\uff11\uff10\uff10"])
def test_a_limit_that_is_none_is_a_wrong_use(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("HARNESS_MEMORY_MB", said)
    with pytest.raises(UsageError, match=r"HARNESS_MEMORY_MB is .* give megabytes"):
        options_of(SPEC, Host(memory_bytes=8_000_000_000))


def test_an_engine_that_does_not_tell_its_memory_sets_no_limit() -> None:
    assert "mem_limit" not in options_of(SPEC, Host.from_info({}))


@pytest.mark.parametrize(
    ("image", "wanted", "is_read_only"),
    [("celery-harness/node:x", True, True), ("celery-harness/node:x", False, False), ("shop/worker:1", True, False)],
)
def test_what_is_ours_can_be_read_only_and_somebody_elses_image_stays_as_it_is(
    image: str, *, wanted: bool, is_read_only: bool
) -> None:
    options = options_of(NodeSpec(name="node", image=image, read_only=wanted), Host())
    assert options.get("read_only", False) is is_read_only
    assert ("tmpfs" in options) is is_read_only
