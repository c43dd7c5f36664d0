"""Where a project says how its worker starts: each kind of file, and what in it is no such command."""

from pathlib import Path

import pytest

from harness.project.command_line import Command, commands_in
from harness.project.source_files import Sources
from harness.project.worker_commands import command_lines, worker_commands
from tests.unit.project.trees import made


def commands(tmp_path: Path, name: str, content: str) -> tuple[Command, ...]:
    return worker_commands(command_lines(Sources(made(tmp_path, {name: content}))))


COMPOSE = """
x-common: &common
  environment:
    QUEUES: slow
services:
  fast:
    <<: *common
    command: celery -A shop.app worker -Q fast,mails -c 4
  slow:
    environment: ["QUEUES=slow"]
    command: ["sh", "-c", "sleep 2 && exec celery --app=shop.app worker --queues $$QUEUES -P threads -B"]
  split:
    entrypoint: ["celery", "-A", "shop.app"]
    command: ["worker", "--autoscale=4,1"]
  folded:
    command: >
      celery
      -A shop.app
      beat
  web:
    command: gunicorn shop.web
  empty:
"""


def test_a_compose_file_has_a_command_for_each_service_that_starts_a_worker(tmp_path: Path) -> None:
    assert commands(tmp_path, "docker-compose.yml", COMPOSE) == (
        Command(
            source="docker-compose.yml: service fast",
            app="shop.app",
            queues=("fast", "mails"),
            options=("--concurrency=4",),
        ),
        Command(
            source="docker-compose.yml: service slow",
            app="shop.app",
            queues=("slow",),
            options=("--pool=threads",),
            with_beat=True,
        ),
        Command(source="docker-compose.yml: service split", app="shop.app", options=("--autoscale=4,1",)),
        Command(source="docker-compose.yml: service folded", app="shop.app", is_beat=True),
    )


@pytest.mark.parametrize(
    "content", ["", "- a\n", "services: 3\n", "services: {web: 3}\n", "services:\n  web: {command: 7}\n"]
)
def test_a_compose_file_without_a_worker_has_no_command(tmp_path: Path, content: str) -> None:
    assert commands(tmp_path, "compose.yaml", content) == ()


def test_a_compose_file_that_is_no_yaml_is_skipped_and_named(tmp_path: Path) -> None:
    sources = Sources(made(tmp_path, {"compose.yaml": "services: ["}))
    assert worker_commands(command_lines(sources)) == ()
    (note,) = sources.notes
    assert note.startswith("compose.yaml was skipped, because it is no valid YAML: ")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("Procfile", "web: gunicorn x\nworker: celery -A shop.app worker\n", 2),
        ("Dockerfile", 'FROM x\nENTRYPOINT ["celery"]\nCMD ["-A", "shop.app", \\\n  "worker"]\n', 3),
        ("worker.Dockerfile", "FROM x\nCMD python -m celery -A shop.app worker\n", 2),
        ("start.sh", "#!/bin/sh\nAPP=shop.app\nexec celery --app $APP \\\n  worker\n", 3),
        ("bin/start", "#!/usr/bin/env bash\nwatchmedo auto-restart -d . -p '*.py' -- celery -A shop.app worker\n", 2),
        ("w.service", "[Service]\nExecStart=/srv/venv/bin/celery -A shop.app worker\n", 2),
        ("supervisord.conf", "[program:w]\ncommand=/venv/bin/celery -A shop.app worker -n w1@%%h\n", 2),
        ("Makefile", "APP = shop.app\nrun:\n\t@celery -A $(APP) worker\n", 3),
        ("README.md", "Start it:\n\n```sh\n$ celery -A shop.app worker\n```\n", 4),
        ("README.md", "Start Celery: `celery -A shop.app worker`, then wait.\n", 1),
        ("README.md", "```sh\necho `date`; celery -A shop.app worker\n```\n", 2),
        ("README.rst", "* Celery: ``celery -A shop.app worker``.\n", 1),
        ("README.rst", "Start it::\n\n    celery -A shop.app worker\n", 3),
    ],
)
def test_a_worker_is_found_in_each_kind_of_file(tmp_path: Path, name: str, content: str, line: int) -> None:
    assert commands(tmp_path, name, content) == (Command(source=f"{name}: line {line}", app="shop.app"),)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Procfile", "flower: celery -A shop.app flower\n"),
        ("Dockerfile", "RUN pip install celery\nCMD gunicorn worker\n"),
        ("start.sh", "# celery -A shop.app worker\n"),
        ("start.sh", "echo 'no end of this celery worker\n"),
        ("bin/start", "#!/usr/bin/env python\nprint('celery -A shop.app worker')\n"),
        ("bin/start", "celery -A shop.app worker\n"),
        ("supervisord.conf", "[program:w]\nstdout=/var/log/celery worker\n"),
        ("Makefile", "celery: worker beat\n"),
        ("README.md", "The celery worker starts itself.\n"),
        ("README.md", "Say `celery` for a worker of `-A shop.app`; a `celery worker` has queues.\n"),
        ("tests/start.sh", "celery -A shop.app worker\n"),
    ],
)
def test_what_starts_no_worker_is_no_command(tmp_path: Path, name: str, content: str) -> None:
    assert commands(tmp_path, name, content) == ()


def test_a_file_for_production_comes_last(tmp_path: Path) -> None:
    made(
        tmp_path,
        {
            "compose.prod.yml": "services: {w: {command: celery -A live worker}}\n",
            "Procfile": "w: celery -A dev worker\n",
        },
    )
    assert [command.app for command in worker_commands(command_lines(Sources(tmp_path)))] == ["dev", "live"]


@pytest.mark.parametrize(
    ("line", "app", "queues", "options"),
    [
        ("celery -A shop worker -Qa,b -c2", "shop", ("a", "b"), ("--concurrency=2",)),
        ("celery worker -A shop -E -O fair --loglevel debug", "shop", (), ("--task-events", "--optimization=fair")),
        ("celery -A shop worker --concurrency $(nproc) -Q ${Q:-x}", "shop", ("x",), ()),
        ("celery -A $UNKNOWN worker -Q $OTHER", None, (), ()),
        ("celery -A shop worker -BE", "shop", (), ("--task-events",)),
        ("celery -A shop worker --purge -n a -s x --pidfile=y", "shop", (), ()),
        ("cd celery && celery -A shop worker", "shop", (), ()),
        ("C=1 poetry run celery -A shop worker", "shop", (), ()),
    ],
)
def test_a_command_line_is_taken_apart(
    line: str, app: str | None, queues: tuple[str, ...], options: tuple[str, ...]
) -> None:
    (command,) = commands_in(line, "here")
    assert (command.app, command.queues, command.options) == (app, queues, options)


def test_the_files_that_a_worker_writes_are_known() -> None:
    (command,) = commands_in("celery -A shop worker -f w.log --pidfile w.pid", "here")
    assert command.written == ("w.log", "w.pid")
