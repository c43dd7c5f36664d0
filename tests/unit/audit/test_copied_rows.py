"""Rows of a database elsewhere, which were copied into the run folder: what the copy cannot show is not missed."""

from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.verdict import Fate, Verdict
from tests.fakes.world import World, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return the world of a run of which one task went well."""
    world = World(RunFolder.create(tmp_path, "test"))
    world.fine("a")
    return world


@pytest.mark.parametrize(
    ("copied_t", "fate"), [(1_001.5, Fate.PENDING), (1_007.0, Fate.PENDING), (1_007.5, Fate.UNRECORDED)]
)
def test_a_row_that_is_stored_after_the_rows_were_copied_is_not_missed(
    world: World, copied_t: float, fate: Fate
) -> None:
    world.intend("x")
    world.say("worker-1", "started", "x", retries=0)
    world.say("worker-1", "finished", "x", state="SUCCESS", store_s=0.1)
    assert world.lines["worker-1"][-1]["t"] == 1_007.0
    world.mail("x")
    world.folder.write("results.json", {"copied_t": copied_t})
    found = world.audit()
    assert found.fates[fate] == 1
    assert found.verdict is not Verdict.PASS


@pytest.mark.parametrize("text", ["{}", '{"copied_t": "soon"}', "no JSON", '{"copied_t": null}', '{"copied_t": NaN}'])
def test_if_nobody_knows_when_the_rows_were_copied_nothing_is_known_of_them(world: World, text: str) -> None:
    world.fine("x")
    (world.folder.path / "results.json").write_text(text)
    assert "when the rows were copied is not known" in finding(world.audit(), "results-unreadable").text
    assert world.audit().verdict is Verdict.UNKNOWN
    world.folder.write("results.json", {"copied_t": 5_000.0})
    assert world.audit().verdict is Verdict.PASS
