"""How a project's image starts its worker, word by word."""

from pathlib import Path

import pytest

from harness.project.entrypoints import Entrypoint, entrypoint_of
from harness.project.source_files import Sources

SHELL = ("/bin/sh", "-c")


def found(folder: Path, **files: str) -> Entrypoint | None:
    for name, text in files.items():
        (folder / {"entry": "entry.sh", "compose": "compose.yaml"}.get(name, name)).write_text(text)
    return entrypoint_of(Sources(folder), "shop")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('CMD ["celery", "-A", "shop", "worker"]', ("celery", "-A", "shop", "worker")),
        ("CMD celery -A shop worker", (*SHELL, "celery -A shop worker")),
        (
            'ENTRYPOINT ["tini", "--"]\nCMD ["celery", "-A", "shop", "worker"]',
            ("tini", "--", "celery", "-A", "shop", "worker"),
        ),
        ('ENTRYPOINT exec celery -A shop worker\nCMD ["x"]', (*SHELL, "exec celery -A shop worker")),
        ('CMD ["web"]\nFROM other\nCMD celery -A shop worker', (*SHELL, "celery -A shop worker")),
        ('CMD celery -A shop worker\nFROM other\nCMD ["web"]', None),
        ("CMD celery -A other worker", None),
        ("CMD celery -A shop beat", None),
        ("RUN true", None),
    ],
)
def test_a_dockerfile_says_it_with_a_shell_or_without_one(
    tmp_path: Path, text: str, words: tuple[str, ...] | None
) -> None:
    entry = found(tmp_path, Dockerfile=f"FROM python\n{text}\n")
    assert (entry and entry.words) == words


def test_a_script_of_the_project_is_read_for_what_it_starts(tmp_path: Path) -> None:
    entry = found(tmp_path, Dockerfile='FROM python\nCMD ["./entry.sh"]\n', entry="#!/bin/sh\ncelery -A shop worker\n")
    assert entry == Entrypoint(words=("./entry.sh",), source="Dockerfile: line 2")


def test_a_compose_file_says_it_without_a_shell(tmp_path: Path) -> None:
    text = "services:\n  web: {command: gunicorn shop}\n  jobs:\n    command: sh -c 'celery -A shop worker -c $$CPUS'\n"
    entry = found(tmp_path, compose=text)
    assert entry == Entrypoint(
        words=("sh", "-c", "celery -A shop worker -c $CPUS"), source="compose.yaml: service jobs"
    )


def test_a_command_that_is_no_command_is_passed_over(tmp_path: Path) -> None:
    assert (
        found(tmp_path, compose='services:\n  jobs: {command: "celery -A shop worker \'x"}\n  none: {command: 3}\n')
        is None
    )
