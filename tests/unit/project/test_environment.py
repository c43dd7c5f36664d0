"""The variables that a project reads: which have to be there, and where a value comes from."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.project.discovery import discover
from harness.project.proposed_values import MADE_UP, SQLITE_URL
from harness.project.required_variables import Need, variables_in
from harness.project.source_files import Sources
from tests.unit.project.trees import DJANGO, PLAIN, made

ENVIRON = "import os\nfrom celery import Celery\napp = Celery('x')\n"


def needs(tmp_path: Path, content: str, name: str = "settings.py") -> dict[str, Need]:
    return {one.name: one.need for one in variables_in(Sources(made(tmp_path, {name: content})))}


@pytest.mark.parametrize(
    "line",
    [
        "A = os.environ['X']",
        "A = int(os.getenv('X'))",
        "A = os.environ.get('X').split(',')",
        "A = os.getenv('X') + '/x'",
        "class Config:\n    A = os.environ['X']",
        "def create_app():\n    return os.environ['X']",
        "if os.name:\n    A = os.environ['X']",
        "try:\n    A = os.environ['X']\nexcept ValueError:\n    A = 1",
    ],
)
def test_a_variable_without_which_a_module_cannot_be_imported_is_demanded(tmp_path: Path, line: str) -> None:
    assert needs(tmp_path, f"import os\n{line}\n") == {"X": Need.IMPORT}


@pytest.mark.parametrize(
    "line",
    [
        "A = os.getenv('X')",
        "A = os.environ.get('X', '1')",
        "A = int(os.getenv('X', '1'))",
        "A = f\"{os.getenv('X')}\"",
        "try:\n    A = os.environ['X']\nexcept KeyError:\n    A = 1",
        "A = os.environ['X'] if 'X' in os.environ else 1",
        "os.environ.setdefault('X', '1')\nA = os.environ['X']",
        "if __name__ == '__main__':\n    A = os.environ['X']",
    ],
)
def test_a_variable_with_a_default_is_not_demanded(tmp_path: Path, line: str) -> None:
    assert needs(tmp_path, f"import os\n{line}\n") == {"X": Need.NEVER}


def test_what_a_function_reads_is_needed_when_it_runs(tmp_path: Path) -> None:
    assert needs(tmp_path, "import os\ndef work():\n    return os.environ['X']\n") == {"X": Need.RUN}


@pytest.mark.parametrize(
    "line", ["os.environ['X'] = '1'", "A = {}['X']", "A = os.environ[NAME]", "del os.environ['X']"]
)
def test_what_reads_no_variable_demands_none(tmp_path: Path, line: str) -> None:
    assert needs(tmp_path, f"import os\n{line}\n") == {}


@pytest.mark.parametrize("name", ["tests/settings.py", "conftest.py", "config/settings/production.py"])
def test_what_tests_and_modules_for_production_read_is_not_demanded(tmp_path: Path, name: str) -> None:
    assert needs(tmp_path, "import os\nA = os.environ['X']\n", name) == {}


def test_django_environ_demands_what_has_no_default(tmp_path: Path) -> None:
    content = """
import environ
env = environ.Env(WITH_DEFAULT=(bool, False))
environ.Env.read_env()
A = env("DEMANDED")
B = env.int("ALSO")
C = env("GIVEN", default="x")
D = env("WITH_DEFAULT")
E = env.db()
"""
    assert needs(tmp_path, content) == {
        "DEMANDED": Need.IMPORT,
        "ALSO": Need.IMPORT,
        "GIVEN": Need.NEVER,
        "WITH_DEFAULT": Need.NEVER,
        "DATABASE_URL": Need.IMPORT,
    }


def test_decouple_demands_what_has_no_default(tmp_path: Path) -> None:
    content = "from decouple import config\nA = config('DEMANDED', cast=int)\nB = config('GIVEN', default=1)\n"
    assert needs(tmp_path, content) == {"DEMANDED": Need.IMPORT, "GIVEN": Need.NEVER}


def test_a_function_called_config_of_another_library_demands_nothing(tmp_path: Path) -> None:
    assert needs(tmp_path, "from flask import config\nA = config('X')\n") == {}


def test_pydantics_settings_demand_the_fields_without_a_default(tmp_path: Path) -> None:
    content = """
from typing import ClassVar
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_")
    kind: ClassVar[str]
    token: str
    debug: bool = False
    queue: str = Field(...)
    pool: int = Field(default=3)
    url: str = Field(alias="BROKER_URL")

class Plain:
    other: str
"""
    assert needs(tmp_path, content) == {
        "SHOP_TOKEN": Need.IMPORT,
        "SHOP_DEBUG": Need.NEVER,
        "SHOP_QUEUE": Need.IMPORT,
        "SHOP_POOL": Need.NEVER,
        "BROKER_URL": Need.IMPORT,
    }


# ------------------------------------------------------------------------------------------------------------ values


def proposed(tmp_path: Path, files: Mapping[str, str], *names: str) -> dict[str, tuple[str, str]]:
    """Return the values for variables that an app demands, each with where it comes from."""
    lines = "".join(f"os.environ[{name!r}]\n" for name in names)
    found = discover(made(tmp_path, {"app.py": ENVIRON + lines, **files})).needs
    assert sorted([*found.env, *(one.name for one in found.lacking)]) == sorted(names)
    return {value.name: (value.value, value.origin) for value in found.env.values()}


@pytest.mark.parametrize(
    ("name", "content", "origin"),
    [
        (".env.example", "export SHOP_URL='http://x' # the shop\n", ".env.example"),
        ("deploy/.env.sample", "SHOP_URL=http://x\n", "deploy/.env.sample"),
        ("compose.yaml", "services: {w: {environment: {SHOP_URL: 'http://x'}}}\n", "compose.yaml: service w"),
        ("compose.yaml", "services: {w: {environment: ['SHOP_URL=http://x']}}\n", "compose.yaml: service w"),
        ("compose.yaml", "services: {w: {environment: {SHOP_URL: '${U:-http://x}'}}}\n", "compose.yaml: service w"),
        ("pyproject.toml", "[tool.pytest.ini_options]\nenv = ['D:SHOP_URL=http://x']\n", "pyproject.toml: pytest"),
        ("pyproject.toml", "[tool.pytest_env]\nSHOP_URL = 'http://x'\n", "pyproject.toml: pytest_env"),
        ("pytest.ini", "[pytest]\nenv =\n    SHOP_URL=http://x\n", "pytest.ini: pytest"),
        ("tests/conftest.py", "import os\nos.environ['SHOP_URL'] = 'http://x'\n", "tests/conftest.py"),
        ("conftest.py", "import os\nos.environ.setdefault('SHOP_URL', 'http://x')\n", "conftest.py"),
    ],
)
def test_a_value_is_looked_up_where_a_project_shows_one(tmp_path: Path, name: str, content: str, origin: str) -> None:
    assert proposed(tmp_path, {name: content}, "SHOP_URL") == {"SHOP_URL": ("http://x", origin)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", "SHOP_URL=http://x\n"),
        (".env.production", "SHOP_URL=http://x\n"),
        (".env.example", "SHOP_URL=\nOTHER=http://x\n# SHOP_URL=http://x\n"),
        (".env.production.example", "SHOP_URL=http://x\n"),
        ("compose.prod.yaml", "services: {w: {environment: {SHOP_URL: 'http://x'}}}\n"),
        ("compose.yaml", "services: {w: {environment: {SHOP_URL: '${U}'}}}\n"),
        ("conftest.py", "other = {}\nother['SHOP_URL'] = 'http://x'\n"),
        ("pyproject.toml", "no TOML\n"),
        ("setup.cfg", "no INI\n"),
    ],
)
def test_no_value_is_taken_from_a_file_for_production_or_from_one_that_shows_none(
    tmp_path: Path, name: str, content: str
) -> None:
    assert proposed(tmp_path, {name: content}, "SHOP_URL") == {}


def test_what_the_stack_knows_is_a_template_whatever_the_project_shows(tmp_path: Path) -> None:
    example = "EMAIL_HOST=smtp.example.com\nBROKER_URL=amqp://live\nMESSAGES=pyamqp://u:p@rabbit//\n"
    found = proposed(tmp_path, {".env.example": example}, "EMAIL_HOST", "EMAIL_PORT", "BROKER_URL", "MESSAGES")
    assert {name: value for name, (value, _) in found.items()} == {
        "EMAIL_HOST": "{mailbox.host}",
        "EMAIL_PORT": "{mailbox.port}",
        "BROKER_URL": "{broker.url}",
        "MESSAGES": "{broker.url}",
    }


def test_a_secret_is_made_up_even_if_the_project_shows_one(tmp_path: Path) -> None:
    found = proposed(
        tmp_path, {".env.example": "SECRET_KEY=abc\nSTRIPE_API_KEY=sk_live\n"}, "SECRET_KEY", "STRIPE_API_KEY"
    )
    assert set(found.values()) == {(MADE_UP, "made up: it is no secret")}


def test_a_database_is_sqlite_unless_the_app_needs_postgresql(tmp_path: Path) -> None:
    assert proposed(tmp_path / "a", {}, "DATABASE_URL")["DATABASE_URL"][0] == SQLITE_URL
    example = {".env.example": "DATABASE_URL=postgres://u:p@db/x\n"}
    assert proposed(tmp_path / "b", example, "DATABASE_URL")["DATABASE_URL"][0] == "{database.url}"
    driver = {".env.example": "DATABASE_URL=postgresql+psycopg://u:p@db/x\n"}
    assert proposed(tmp_path / "c", driver, "DATABASE_URL")["DATABASE_URL"][0] == (
        "postgresql+psycopg://{database.user}:{database.password}@{database.host}:{database.port}/{database.name}"
    )
    assert discover(tmp_path / "a").needs.services == ()
    assert discover(tmp_path / "b").needs.services == ("postgresql",)


def test_a_variable_with_a_default_gets_a_value_only_if_the_stack_has_what_it_names(tmp_path: Path) -> None:
    files = {
        **DJANGO,
        "config/more.py": "import os\nA = os.getenv('SHOP_URL', 'x')\n",
        ".env.example": "SHOP_URL=http://x\n",
    }
    assert set(discover(made(tmp_path, files)).needs.env) == {"DJANGO_SECRET_KEY", "EMAIL_HOST", "EMAIL_PORT"}


def test_an_app_that_reads_nothing_needs_nothing(tmp_path: Path) -> None:
    found = discover(made(tmp_path, PLAIN)).needs
    assert (found.env, found.lacking, found.services, found.migrations, found.written) == ({}, (), (), (), ())
