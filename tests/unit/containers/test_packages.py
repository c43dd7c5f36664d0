"""How packages and wheels are fetched, and what is said where they cannot be."""

import os
from pathlib import Path

import pytest

from harness.containers.packages import find_mmdebstrap, platforms
from harness.errors import ImageError


def executable(path: Path) -> str:
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_without_root_the_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "apt-get")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="apt-get install mmdebstrap uidmap"):
        find_mmdebstrap(pytest.fail, otherwise="")


def test_without_apt_another_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="or name an image of your own") as caught:
        find_mmdebstrap(pytest.fail, otherwise="name an image of your own")
    assert "apt-get" not in str(caught.value)


def test_root_installs_what_is_missing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "apt-get")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    said: list[str] = []
    with pytest.raises(ImageError, match="apt-get failed with exit code 1"):
        find_mmdebstrap(said.append, otherwise="")
    assert "mmdebstrap is missing" in said[0]


def test_an_installation_waits_for_another_one_that_is_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, mmdebstrap = tmp_path / "calls", tmp_path / "mmdebstrap"
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n: >{mmdebstrap}\n/bin/chmod +x {mmdebstrap}\n')
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert find_mmdebstrap(lambda _: None, otherwise="") == str(mmdebstrap)
    update, install = calls.read_text().splitlines()
    assert update.split()[-1] == "update"
    assert "install" in install.split()
    for call in (update, install):
        assert "-o DPkg::Lock::Timeout=" in call


def test_an_mmdebstrap_that_is_there_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = executable(tmp_path / "mmdebstrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mmdebstrap(pytest.fail, otherwise="") == path


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_wheels_are_asked_for_by_the_engines_architecture(architecture: str, machine: str) -> None:
    asked = platforms(architecture)
    assert {f"manylinux2014_{machine}", f"manylinux_2_28_{machine}"} <= set(asked)
    assert all(platform.endswith(f"_{machine}") for platform in asked)
