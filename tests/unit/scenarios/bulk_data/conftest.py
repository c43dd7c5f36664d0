"""What the tests of the import of orders share."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.backends.database import DatabaseBackend
from sqlalchemy import Engine

from scenarios.app import app, database
from scenarios.bulk_data.tables import create_tables


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Yield the app's database, which the tasks use, too."""
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/app.sqlite3")
    create_tables(database())
    yield database()
    database().dispose()


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty result database, which the app uses during the test."""
    backend = DatabaseBackend(app=app, url=f"sqlite:///{tmp_path}/results.sqlite3")
    monkeypatch.setattr(app, "_backend_cache", backend)
    return tmp_path / "results.sqlite3"


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """Return a run folder and results as a stack has them."""
    (tmp_path / "app").mkdir()
    (tmp_path / "journal").mkdir()
    folder = SimpleNamespace(path=tmp_path, journal=tmp_path / "journal")
    return SimpleNamespace(folder=folder, results=SimpleNamespace(groups=list))
