"""What a project's own Dockerfile begins with, and what is sent to its build."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.dockerfile import bases, context


def written(folder: Path, text: str) -> Path:
    path = folder / "Dockerfile"
    path.write_text(text)
    return path


def test_stages_of_its_own_are_no_images_to_be_had(tmp_path: Path) -> None:
    text = (
        "ARG VERSION=3.11\nFROM --platform=linux/amd64 node:22 AS page\nFROM python:${VERSION}-slim as build\n"
        "FROM ${BASE:-debian:12}\nFROM build\nCOPY --from=page /a /b\n"
    )
    assert bases(written(tmp_path, text)) == ["node:22", "python:3.11-slim", "debian:12"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("RUN true\n", "has no FROM"), ("ARG BASE\nFROM $BASE\n", r"leaves \$BASE to an argument of the build")],
)
def test_a_dockerfile_without_a_base_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        bases(written(tmp_path, text))


def test_what_no_build_needs_and_what_is_ignored_is_not_sent(tmp_path: Path) -> None:
    for name in (
        "shop/tasks.py",
        "shop/__pycache__/tasks.pyc",
        ".git/HEAD",
        ".venv/bin/python",
        "media/a.png",
        "a.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "media" / "keep.png").touch()
    (tmp_path / ".dockerignore").write_text("# What users have sent.\n/media\n!media/keep.png\n**/*.log\n")
    assert [path.as_posix() for path in context(tmp_path)] == [".dockerignore", "media/keep.png", "shop/tasks.py"]
