"""What the tests of every folder share."""

import functools
import os
import signal

import pytest

from harness.containers.engine_choice import connect
from harness.errors import EngineError


def pytest_configure() -> None:
    """Give what the tests start the environment of a user: it obeys Ctrl-C, and takes its output for a log.

    What a shell runs in its background ignores Ctrl-C, and hands that down. pytest-xdist sets COLUMNS to 80.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop("COLUMNS", None)


@functools.cache
def _no_engine() -> str | None:
    """Why no engine can be used; None if one answers."""
    try:
        connect().close()
    except EngineError as error:
        return str(error)
    return None


@pytest.fixture(autouse=True)
def _engine_or_skip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip a test marked `docker` where there is no engine; in CI that is an error. Keep the engine from all others."""
    # What a test runs has nothing to say on the page of this job.
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if request.node.get_closest_marker("docker") is None:
        # Else a unit test could build an image or start a stack where an engine happens to be there.
        monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
        return
    if (reason := _no_engine()) is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
