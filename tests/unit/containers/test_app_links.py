"""Which links of an app's folder are followed, and where what they lead to is inside a node."""

import os
import socket
from pathlib import Path

import pytest

from harness.containers.app_links import mounts_of_links, outside_folder
from harness.errors import UsageError
from harness.project.needs import Mount


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return an app's folder, with neighbours."""
    for folder in ("app/pkg", "common/deep", "lib"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    (tmp_path / "project" / "settings.ini").touch()
    return tmp_path / "project" / "app"


def followed(app: Path, *leave_out: Path) -> tuple[dict[str, Path], list[str]]:
    """Return what is mounted, by its place inside; and what was said."""
    said: list[str] = []
    mounts = mounts_of_links(app, say=said.append, leave_out=leave_out)
    assert all(mount.read_only for mount in mounts)
    return {mount.inside: mount.host for mount in mounts}, said


def test_a_link_that_leaves_the_folder_finds_its_target_where_it_leads_to_inside(app: Path) -> None:
    (app / "common").symlink_to("../common")
    (app / "pkg" / "deep").symlink_to("../../common/deep")
    (app / "settings.ini").symlink_to(app.parent / "settings.ini")
    project = app.parent
    assert followed(app) == (
        {
            "/common": project / "common",
            "/common/deep": project / "common" / "deep",
            str(project / "settings.ini"): project / "settings.ini",
        },
        [],
    )


def test_a_folder_that_is_a_link_itself_leads_to_the_same(app: Path, tmp_path: Path) -> None:
    (app / "common").symlink_to("../common")
    (tmp_path / "shortcut").symlink_to(app)
    assert followed(tmp_path / "shortcut")[0] == {"/common": app.parent / "common"}


def test_a_link_within_the_folder_needs_nothing(app: Path) -> None:
    (app / "again").symlink_to("pkg")
    (app / "pkg" / "up").symlink_to("..")
    assert followed(app) == ({}, [])


def test_a_link_that_leads_to_nothing_or_to_a_socket_is_passed_over(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (app / "lost").symlink_to("../nowhere")
    (app / "loop").symlink_to("loop")
    (app / "engine.sock").symlink_to("../engine.sock")
    # The path of a socket has to be short.
    monkeypatch.chdir(app.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind("engine.sock")
        assert followed(app) == ({}, [])


def test_what_would_hide_a_folder_of_the_system_is_said_and_not_followed(app: Path) -> None:
    (app / "lib").symlink_to("../lib")
    (app / "above").symlink_to("..")
    (app / "libraries").symlink_to("../common")
    mounts, said = followed(app)
    assert list(mounts) == ["/common"]
    assert sorted(line.partition(": ")[2].split(",")[0] for line in said) == [
        "inside a node it leads to /",
        "inside a node it leads to /lib",
    ]


def test_a_link_to_the_system_means_the_nodes_own(app: Path) -> None:
    (app / "zone").symlink_to("/etc/hostname")
    (app / "temporary").symlink_to("/tmp")  # noqa: S108 - it is only linked to.
    assert followed(app) == ({}, [])


def test_links_of_tools_and_in_folders_that_are_left_out_are_not_the_apps(app: Path) -> None:
    for folder in ("node_modules", ".git", "env/bin", "runs"):
        (app / folder).mkdir(parents=True)
        (app / folder / "link").symlink_to(app.parent / "common")
    (app / "env" / "pyvenv.cfg").touch()
    assert followed(app, app / "runs") == ({}, [])


def test_a_folder_with_too_many_entries_is_told_of(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.containers.app_links._MOST_ENTRIES", 1)
    (app / "common").symlink_to("../common")
    (app / "pkg" / "deep").symlink_to("../../common/deep")
    mounts, said = followed(app)
    assert list(mounts) == ["/common"]
    assert said == [f"{app} has more than 1 entries: links in the rest of it are not followed."]


def test_a_folder_to_import_from_needs_a_mount_only_if_it_is_outside(app: Path) -> None:
    assert outside_folder(app, "pkg") is None
    assert outside_folder(app, ".") is None
    assert outside_folder(app, "../common") == Mount(host=app.parent / "common", inside="/common")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("src", "names 'src', which is no folder relative to"),
        (os.sep, "names '/', which is no folder relative to"),
        ("../lib", "names '../lib': inside a node this is /lib, a folder of the node's own"),
    ],
)
def test_a_folder_that_cannot_be_imported_from_is_a_wrong_use(app: Path, path: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        outside_folder(app, path)
