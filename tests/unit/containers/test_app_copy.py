"""The copy of an app's folder that nodes may write to: what is in it, what is beside it, and what is never changed."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from harness.containers import app_copy
from harness.containers.app_copy import copy_app, remove_copy
from harness.errors import RunFolderError, UsageError
from harness.project.needs import Mount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return an app's folder, with what belongs to tools."""
    folder = tmp_path / "shop"
    for name in ("pkg/__init__.py", "media/old/cat.png", ".git/HEAD", "node_modules/x.js", "env/pyvenv.cfg", "db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "pkg" / "__pycache__").mkdir()
    (folder / "runs" / "now").mkdir(parents=True)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run" / "copy"


def contents(folder: Path) -> set[str]:
    """Return the paths of everything in a folder that is no folder, and of each empty folder."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    return {path.relative_to(folder).as_posix() for path in found}


def copied(source: Path, target: Path, wanted: list[str] | None = None) -> dict[str, Path]:
    """Copy without a word; return what is mounted, by its place inside."""
    said: list[str] = []
    mounts = copy_app(source, target, wanted, say=said.append, leave_out=[source / "runs"])
    assert said == []
    assert all(mount.read_only for mount in mounts)
    return {mount.inside: mount.host for mount in mounts}


def test_a_copy_has_all_of_the_app_and_nothing_of_its_tools(source: Path, target: Path) -> None:
    assert copied(source, target) == {}
    assert contents(target) == {"pkg/__init__.py", "media/old/cat.png", "db"}
    assert (target / "db").stat().st_mtime_ns == (source / "db").stat().st_mtime_ns


def test_a_copy_is_writable_whatever_the_source_is_and_the_source_stays_as_it_is(source: Path, target: Path) -> None:
    (source / "db").chmod(0o444)
    (source / "pkg").chmod(0o555)
    copied(source, target)
    assert (target / "db").stat().st_mode & stat.S_IWUSR
    assert (target / "pkg").stat().st_mode & stat.S_IWUSR
    (target / "db").write_text("new")
    (target / "pkg" / "new").touch()
    assert (source / "db").read_text() == "db"
    assert not (source / "pkg" / "new").exists()
    (source / "pkg").chmod(0o755)


def test_only_what_is_named_is_copied_and_the_rest_is_mounted_beside_it(source: Path, target: Path) -> None:
    mounts = copied(source, target, ["media/old/", "./db", "made/later"])
    rest = ("pkg", "node_modules", "env", ".git")
    assert mounts == {f"/app/{name}": source / name for name in rest}
    # A mount needs a place.
    assert contents(target) == {"media/old/cat.png", "db", *rest}


def test_a_file_beside_a_named_one_is_mounted_too(source: Path, target: Path) -> None:
    (source / "media" / "list.txt").write_text("cat")
    mounts = copied(source, target, ["media/old"])
    assert mounts["/app/media/list.txt"] == source / "media" / "list.txt"
    assert (target / "media" / "list.txt").read_text() == ""


def test_naming_the_folder_itself_is_a_copy_of_all(source: Path, target: Path) -> None:
    assert copied(source, target, ["."]) == {}
    assert contents(target) == {"pkg/__init__.py", "media/old/cat.png", "db"}


def test_a_link_stays_a_link_and_leads_to_the_same_place_inside(source: Path, target: Path) -> None:
    links = {"newest": "media/old", "common": "../common", "absolute": str(source / "media"), "lost": "nowhere"}
    for name, text in links.items():
        (source / name).symlink_to(text)
    copied(source, target)
    assert {name: str((target / name).readlink()) for name in links} == {**links, "absolute": "/app/media"}


def test_a_link_that_is_named_is_copied_from_where_it_leads_to(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "dog.png").touch()
    (source / "uploads").symlink_to("../uploads")
    copied(source, target, ["uploads"])
    assert not (target / "uploads").is_symlink()
    assert (target / "uploads" / "dog.png").exists()


def test_what_is_neither_file_nor_folder_is_not_copied(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    copied(source, target)
    assert "pipe" not in contents(target)


@pytest.mark.parametrize(("limit", "value"), [("_MOST_BYTES", 18), ("_MOST_FILES", 2)])
def test_a_folder_that_is_too_large_is_refused_with_what_is_large_in_it(
    monkeypatch: pytest.MonkeyPatch, source: Path, target: Path, limit: str, value: int
) -> None:
    monkeypatch.setattr(app_copy, limit, value)
    with pytest.raises(UsageError, match=r"would have more than .*media 0 MB.* Name the paths .* writable=\['media'\]"):
        copied(source, target)
    assert not target.exists()
    copied(source, target, ["db"])


def test_a_disk_that_is_too_full_is_refused_before_anything_is_copied(
    monkeypatch: pytest.MonkeyPatch, source: Path, target: Path
) -> None:
    monkeypatch.setattr(app_copy, "_LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(RunFolderError, match="MB are free at"):
        copied(source, target)
    assert not target.exists()


def test_too_many_mounts_are_refused(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path) -> None:
    monkeypatch.setattr(app_copy, "_MOST_MOUNTS", 2)
    with pytest.raises(UsageError, match="too many files to make only some of them writable"):
        copied(source, target, ["db"])


def test_what_takes_long_is_told(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path) -> None:
    class Impatient:
        def is_due(self) -> bool:
            return True

    monkeypatch.setattr(app_copy, "Reports", Impatient)
    said: list[str] = []
    copy_app(source, target, ["db"], say=said.append)
    assert said == ["copying the app's folder, 0 MB: file 1 of 1"]


def test_a_file_that_is_removed_meanwhile_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, source: Path, target: Path
) -> None:
    free = shutil.disk_usage

    def removes_a_file(path: Path) -> object:
        (source / "db").unlink()
        return free(path)

    # It is asked between the plan and the copy.
    monkeypatch.setattr(shutil, "disk_usage", removes_a_file)
    copied(source, target)
    assert contents(target) == {"pkg/__init__.py", "media/old/cat.png"}


def test_a_copy_is_removed_whatever_became_of_it_and_what_is_gone_is_fine(source: Path, target: Path) -> None:
    copied(source, target)
    (target / "pkg" / "closed").mkdir()
    (target / "pkg" / "closed").chmod(0)
    (target / "out").symlink_to(source)
    remove_copy(target)
    remove_copy(target)
    assert not target.exists()
    assert (source / "db").exists()


def test_a_mount_of_the_copy_is_read_only(source: Path, target: Path) -> None:
    (first, *_) = copy_app(source, target, ["db", "media", "env"], say=print)
    assert first == Mount(host=source / ".git", inside="/app/.git", read_only=True)
