"""An image with too old a Celery, or without SQLAlchemy, is refused. `nox -s versions` has those that are not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.image_recipes import Image
from harness.containers.images import ensure
from harness.errors import StartError
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from tests.versions.images import built

pytestmark = pytest.mark.docker

PACKAGES = "/opt/venv/lib/python3*/site-packages"
# Today's pip refuses to install a Celery before 5.2, whose metadata it finds invalid.
TOO_OLD = rf"""
ARG BASE
FROM ${{BASE}}
RUN sed -i 's/^Version: .*/Version: 5.1.2/' {PACKAGES}/celery-*.dist-info/METADATA
"""
WITHOUT_SQLALCHEMY = rf"""
ARG BASE
FROM ${{BASE}}
RUN rm -r {PACKAGES}/sqlalchemy {PACKAGES}/sqlalchemy-*.dist-info
"""


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    with SharedParts(print) as session:
        yield session


@pytest.fixture
def stack_on(session: SharedParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stack]:
    """Return a function that makes a stack whose worker is of an image."""

    def make(image: str) -> Stack:
        monkeypatch.setattr(SharedParts, "worker_image", image)
        spec = StackSpec(app="every_kind", app_folder=Path(__file__).with_name("apps"))
        return Stack(session, spec, RunFolder.create(tmp_path, "run"))

    return make


@pytest.mark.parametrize(
    ("name", "dockerfile", "reason"),
    [
        ("too-old", TOO_OLD, "Celery 5.1.2 is too old: the harness runs Celery 5.2 or newer. Install a newer one"),
        ("no-sqlalchemy", WITHOUT_SQLALCHEMY, "the image's Python 3.13 has no SQLAlchemy, and Celery cannot store"),
    ],
    ids=["too-old", "no-sqlalchemy"],
)
def test_an_image_that_cannot_run_it_is_refused_in_a_sentence(
    session: SharedParts, stack_on: Callable[[str], Stack], name: str, dockerfile: str, reason: str
) -> None:
    node = ensure(session.engine, Image.NODE, say=print, ours=True)
    with built(session.engine, name, node, dockerfile) as image:
        stack = stack_on(image)
        with pytest.raises(StartError) as refused:
            stack.__enter__()
    said = str(refused.value)
    assert said.startswith(f"worker-1 exited with 1 before it was ready. {reason}")
    assert "\n" not in said
