"""Every Celery from 5.2 to 5.7 with every SQLAlchemy that it accepts runs under the harness, and is accounted for."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.event import Kind, Up
from harness.records.journal import read
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from tests.versions.contract import check_all_is_accounted_for, check_wrong_results_are_wrong
from tests.versions.images import Cell, base_with, image_with
from tests.versions.table import Row, rows_key

pytestmark = pytest.mark.docker

ACCEPTS = {
    "5.2.7": ("1.4", "2.0", "2.1"),
    # These name their limit, as Kombu does for later ones.
    "5.3.6": ("1.4", "2.0"),
    "5.4.0": ("1.4", "2.0"),
    "5.5.3": ("1.4", "2.0"),
    "5.6.3": ("1.4", "2.0", "2.1"),
    "5.7.0": ("1.4", "2.0", "2.1"),
}
"""Per Celery, the versions of SQLAlchemy that it accepts."""
CELLS = (
    # What an app has that was locked when that Celery was new.
    Cell("5.2.7", "1.4.41", ("kombu==5.2.4", "amqp==5.1.1", "click==8.1.3", "vine==5.0.0")),
    *(Cell(celery, sqlalchemy) for celery, accepted in ACCEPTS.items() for sqlalchemy in accepted),
)
APPS = Path(__file__).parents[1] / "docker" / "apps"


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    with SharedParts(print) as session:
        yield session


@pytest.fixture(scope="module")
def base_of(session: SharedParts) -> Iterator[Callable[[Cell], str]]:
    """Yield a function that returns the image that a cell is built on, and makes it the first time."""
    with ExitStack() as closing:
        made: dict[str, str] = {}

        def base(cell: Cell) -> str:
            if cell.python not in made:
                made[cell.python] = closing.enter_context(base_with(session.engine, cell.python))
            return made[cell.python]

        yield base


@pytest.fixture
def stack_on(session: SharedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stack]:
    """Return a function that makes a stack whose worker is of an image."""

    def make(image: str) -> Stack:
        monkeypatch.setattr(SharedParts, "worker_image", image)
        return Stack(session, StackSpec(app="every_kind", app_folder=APPS), RunFolder.create(tmp_path, "run"))

    return make


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Return the cell's row in the table that is printed at the end."""
    row = Row(request.getfixturevalue("cell"))
    request.config.stash[rows_key].append(row)
    return row


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_task_is_accounted_for_and_every_result_is_judged(
    cell: Cell, row: Row, base_of: Callable[[Cell], str], stack_on: Callable[[str], Stack], session: SharedParts
) -> None:
    with image_with(session.engine, cell, base_of(cell)) as image, stack_on(image) as stack:
        row.versions = versions_of(stack)
        row.said = check_all_is_accounted_for(stack).text().partition("\n")[0]
        check_wrong_results_are_wrong(stack)
        row.is_right = True


def versions_of(stack: Stack) -> Mapping[str, str]:
    """Return the versions that the worker has told."""
    (up,) = (event for event in read(stack.folder.journal) if event.kind is Kind.UP and event.node == "worker-1")
    return up.of(Up)["versions"]
