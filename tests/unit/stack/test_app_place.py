"""The app's folder as nodes see it: as it is, or as a copy, with what was asked for in its place."""

from pathlib import Path
from typing import Any

import pytest

from harness.project.needs import Mount
from harness.stack.app_place import AppPlace, remove_copy_of
from harness.stack.stack_spec import StackSpec


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an app's folder, which has a link to `common` beside it, and runs in it."""
    for folder in ("app/pkg", "app/runs/before", "app/runs/now", "common", "libs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "app" / "common").symlink_to("../common")
    (tmp_path / "shop.conf").touch()
    return tmp_path / "app"


def place(app: Path, **settings: Any) -> AppPlace:
    said: list[str] = []
    spec = StackSpec(app="shop", app_folder=app, **settings)
    made = AppPlace.of(spec, app / "runs" / "now", said.append)
    assert said == []
    return made


def test_a_folder_that_nobody_writes_to_is_seen_as_it_is_with_what_it_leads_to(app: Path) -> None:
    seen = place(app, pythonpath=["pkg", "../libs"])
    assert (seen.folder, seen.is_writable) == (app, False)
    assert {mount.inside: mount.host for mount in seen.mounts} == {
        "/libs": app.parent / "libs",
        "/common": app.parent / "common",
    }
    assert not (app / "runs" / "now" / "copy").exists()


def test_what_is_asked_for_takes_the_place_of_what_a_link_leads_to(app: Path) -> None:
    (mount,) = place(app, mounts=[Mount(host=Path("../libs"), inside="/common", read_only=False)]).mounts
    assert (mount.host.resolve(), mount.inside, mount.read_only) == (app.parent / "libs", "/common", False)


def test_a_copy_does_not_contain_itself_or_the_runs_before(app: Path) -> None:
    seen = place(app, writable=True)
    assert (seen.folder, seen.is_writable) == (app / "runs" / "now" / "copy", True)
    assert sorted(path.name for path in seen.folder.iterdir()) == ["common", "pkg"]
    remove_copy_of(app / "runs" / "now")
    assert not seen.folder.exists()
    assert (app / "pkg").is_dir()


def test_the_place_of_a_mount_is_made_in_the_copy_so_that_it_belongs_to_the_caller(app: Path) -> None:
    mounts = [
        Mount(host=Path("../shop.conf"), inside="/app/conf/local.conf"),
        Mount(host=Path("../libs"), inside="/app/libs"),
        Mount(host=Path("../shop.conf"), inside="/etc/shop.conf"),
    ]
    seen = place(app, writable=["pkg"], mounts=mounts)
    assert (seen.folder / "conf" / "local.conf").is_file()
    assert (seen.folder / "libs").is_dir()
    assert not (seen.folder / "etc").exists()
    assert {mount.inside for mount in seen.mounts} >= {"/app/conf/local.conf", "/app/libs", "/etc/shop.conf"}
