"""The commands that make an app's tables: each way to say one, and what only looks like one."""

from pathlib import Path, PurePosixPath

import pytest

from harness.project.discovery import discover
from tests.unit.project.trees import DJANGO, PLAIN, made

ALEMBIC = {"alembic.ini": "[alembic]\n"}
MODULE = {"shop/migrate.py": "", "shop/cli.py": ""}
SCRIPTS = {
    "pyproject.toml": "[project.scripts]\nshop-migrate = 'shop.migrate:main'\nshop = 'shop.cli:app.main'\n"
    "[tool.poetry.scripts]\nold = 'gone:main'\n"
}


def prepared(tmp_path: Path, files: dict[str, str], *imported: str) -> list[str]:
    """Return the commands for an app that is imported from the project's own folder."""
    needs = discover(made(tmp_path, {**PLAIN, **files})).needs
    return list(needs.prepare_in(PurePosixPath(), *map(PurePosixPath, imported)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("compose.yaml", "services: {migrate: {command: python -m shop.migrate}}\n"),
        ("compose.yaml", "services: {m: {command: ['sh', '-c', 'python -m shop.migrate && exec gunicorn x']}}\n"),
        ("Dockerfile", 'FROM x\nCMD ["python", "-m", "shop.migrate"]\n'),
        ("Procfile", "release: python -u -m shop.migrate > /dev/null\n"),
        ("bin/start", "#!/bin/sh\nset -e\npython3 -m shop.migrate\ncelery -A shop.app worker\n"),
        ("entrypoint.sh", 'PY=python\n"$PY" -m shop.migrate || exit 1\n'),
        ("Makefile", "migrate:\n\t@docker compose run --rm web python -m shop.migrate\n"),
        ("README.md", "First `python -m shop.migrate`, then a worker.\n"),
        ("README.md", "```\n$ poetry run python -m shop.migrate\n```\n"),
    ],
)
def test_a_module_that_makes_the_tables_is_found_wherever_it_stands(tmp_path: Path, name: str, content: str) -> None:
    assert prepared(tmp_path, {**MODULE, name: content}) == ["python -m shop.migrate"]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("alembic upgrade head", "alembic upgrade head"),
        ("uv run alembic -c alembic.ini upgrade heads", "alembic -c alembic.ini upgrade heads"),
        ("python -m alembic upgrade head", "alembic upgrade head"),
        ("FLASK_APP=shop.app flask db upgrade", "flask --app shop.app db upgrade"),
        ("flask --app shop.app db upgrade", "flask --app shop.app db upgrade"),
        ("python scripts/init_db.py --force", "python scripts/init_db.py --force"),
        ("python -m shop.cli db upgrade", "python -m shop.cli db upgrade"),
        ("shop-migrate", "python -c 'from shop.migrate import main; main()'"),
        ("shop init-db -v", "python -c 'from shop.cli import app; app.main()' init-db -v"),
    ],
)
def test_each_kind_of_command_is_written_as_a_stack_can_run_it(tmp_path: Path, line: str, command: str) -> None:
    files = {**MODULE, **SCRIPTS, **ALEMBIC, "scripts/init_db.py": "", "Procfile": f"release: {line}\n"}
    assert prepared(tmp_path, files) == [command]


@pytest.mark.parametrize(
    "line",
    [
        "python -m shop.cli",
        "python -m shop.cli make-migrations",
        "python -m shop.cli db downgrade",
        "python -m shop.migrate --check",
        "python -m shop.migrate $DATABASE",
        "python -m elsewhere.migrate",
        "python gone/migrate.py",
        "python -m pip install flask-migrate",
        "pip install alembic",
        "alembic upgrade head",
        "alembic revision --autogenerate",
        "flask --app gone db upgrade",
        "flask db upgrade",
        "old migrate",
        "shop list-migrations",
        "migrate",
    ],
)
def test_what_makes_no_tables_of_the_project_is_not_run(tmp_path: Path, line: str) -> None:
    assert prepared(tmp_path, {**MODULE, **SCRIPTS, "Procfile": f"release: {line}\n"}) == []


@pytest.mark.parametrize("lines", ["{} && {}\n", "{}\n{}\n{}\n"])
def test_a_file_may_have_several_and_only_the_most_telling_file_counts(tmp_path: Path, lines: str) -> None:
    create, upgrade = "python scripts/create_db.py", "alembic upgrade head"
    files = {
        **MODULE,
        **ALEMBIC,
        "scripts/create_db.py": "",
        "README.md": "Make tables with `python -m shop.migrate`.\n",
        "start.sh": lines.format(create, upgrade, create),
        "compose.prod.yml": "services: {m: {command: python -m shop.migrate}}\n",
    }
    assert prepared(tmp_path, files) == ["python scripts/create_db.py", "alembic upgrade head"]


def test_what_no_line_shows_is_known_by_the_files(tmp_path: Path) -> None:
    assert prepared(tmp_path / "none", {}) == []
    assert prepared(tmp_path / "alembic", ALEMBIC) == ["alembic upgrade head"]
    flask = {**ALEMBIC, "wsgi.py": "import flask\nfrom flask_migrate import Migrate\n"}
    assert prepared(tmp_path / "flask", flask) == ["flask --app wsgi.py db upgrade"]
    # Django's own tables come first of all, whatever else is started.
    lines = {**MODULE, "Procfile": "release: python -m shop.migrate\n"}
    assert prepared(tmp_path / "django", {**DJANGO, **lines}) == ["python manage.py migrate --noinput"]


def test_a_module_is_run_only_where_it_can_be_imported(tmp_path: Path) -> None:
    files = {"src/stock/__init__.py": "", "src/stock/migrate.py": "", "Procfile": "release: python -m stock.migrate\n"}
    assert prepared(tmp_path, files) == []
    assert prepared(tmp_path, files, "src") == ["python -m stock.migrate"]
    needs = discover(tmp_path).needs
    assert needs.not_prepared_in(PurePosixPath()) == ("Procfile: line 1",)
    assert needs.not_prepared_in(PurePosixPath(), PurePosixPath("src")) == ()
