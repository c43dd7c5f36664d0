"""What every auditor has to find: each defect that the selftest plants in the record of a run, and no other.

`clean_run/` is the record of the selftest's clean run, with its results as SQL. `harness selftest` leaves a new one
below `.harness/runs`.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from harness.audit.audit import Audit, audit
from harness.audit.run_folder import RunFolder
from harness.records.finding_codes import Code
from harness.records.verdict import Fate, Finding, Verdict
from harness.selftest import record_plants, selftest
from harness.selftest.evidence import Evidence, copy
from harness.selftest.plant import Plant, Result, Seen

RECORD = Path(__file__).parent / "clean_run"
CONTROL = Seen(fates={Fate.FAILED: 1})
PLANTS = record_plants.plants()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a folder with the record of a clean run."""
    folder = tmp_path_factory.mktemp("clean")
    with closing(sqlite3.connect(folder / "results.sqlite3")) as database:
        database.executescript((RECORD / "results.sql").read_text())
    for path in [path for path in RECORD.rglob("*.json*") if path.is_file()]:
        target = folder / path.relative_to(RECORD)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return RunFolder(folder)


def named(name: str) -> Plant[Evidence]:
    return next(plant for plant in PLANTS if plant.name == name)


def test_the_control_passes_and_has_nothing_to_say(clean: RunFolder) -> None:
    audited = audit(clean)
    assert (audited.verdict, Seen.of(audited)) == (Verdict.PASS, CONTROL), audited.text()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_each_defect_is_found_and_nothing_else(clean: RunFolder, plant: Plant[Evidence]) -> None:
    outcome = record_plants.outcome(plant, clean, CONTROL)
    assert outcome.result is Result.FOUND, f"wanted {outcome.wanted.words()}, found {outcome.seen.words()}"


def test_each_fate_and_each_finding_has_a_plant_and_there_are_many() -> None:
    assert selftest.unplanted() == frozenset()
    assert selftest.planted() >= 100
    assert len({plant.name for plant in PLANTS}) == len(PLANTS)


def test_a_finding_without_a_plant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = named("early")
    assert "early" in alone.findings
    monkeypatch.setattr(record_plants, "plants", lambda: [plant for plant in PLANTS if plant is not alone])
    assert selftest.unplanted() == {"early"}


def silent(code: Code) -> Callable[[Audit], Audit]:
    """Return a change of an audit: a finding is never made."""
    return lambda said: replace(said, findings=tuple(one for one in said.findings if one.code != code))


def another_verdict(said: Audit) -> Audit:
    return replace(said, findings=tuple(replace(one, verdict=Verdict.PASS) for one in said.findings))


def no_fate(said: Audit) -> Audit:
    return replace(said, fates=dict.fromkeys(Fate, 0) | {Fate.OK: said.entries - 1, Fate.FAILED: 1})


def more_of_a_fate(said: Audit) -> Audit:
    return replace(said, fates={**said.fates, Fate.LOST: said.fates[Fate.LOST] + 1})


def more_findings(said: Audit) -> Audit:
    more = Finding(code="early", verdict=Verdict.PASS, count=1, text="a remark.")
    return replace(said, findings=(*said.findings, more))


@pytest.mark.parametrize(
    ("broken", "result"),
    [
        (silent(Code.LOST), Result.MISSED),
        (silent(Code.EARLY), Result.FOUND),
        (another_verdict, Result.MISSED),
        (no_fate, Result.MISSED),
        (more_of_a_fate, Result.CONFUSED),
        (more_findings, Result.CONFUSED),
    ],
)
def test_an_auditor_that_misses_or_adds_something_is_red(
    clean: RunFolder, broken: Callable[[Audit], Audit], result: Result
) -> None:
    plant = named("lost before it began")
    outcome = record_plants.outcome(plant, clean, CONTROL, lambda folder: broken(audit(folder)))
    assert outcome.result is result
    assert outcome.verdict is (Verdict.PASS if result is Result.FOUND else Verdict.FAIL)


def test_an_auditor_that_fails_has_missed_the_defect_and_a_defect_that_cannot_be_planted_shows_nothing(
    clean: RunFolder,
) -> None:
    def fail(_: object) -> NoReturn:
        raise KeyError("on purpose")

    plant = named("lost before it began")
    missed = record_plants.outcome(plant, clean, CONTROL, fail)
    assert (missed.result, missed.verdict, missed.error) == (Result.MISSED, Verdict.FAIL, "KeyError: 'on purpose'")
    unmade = record_plants.outcome(replace(plant, make=fail), clean, CONTROL)
    assert (unmade.result, unmade.verdict, unmade.error) == (
        Result.NOT_PLANTED,
        Verdict.UNKNOWN,
        "KeyError: 'on purpose'",
    )


def test_a_plant_leaves_the_clean_record_as_it_is(clean: RunFolder, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in clean.path.rglob("*") if path.is_file()}
    named("nothing sent").make(evidence := Evidence(copy(clean.path, tmp_path / "copy")))
    evidence.write()
    assert {path: path.read_bytes() for path in clean.path.rglob("*") if path.is_file()} == before


def test_a_copy_that_is_written_back_unchanged_is_audited_as_the_clean_run(clean: RunFolder, tmp_path: Path) -> None:
    Evidence(folder := copy(clean.path, tmp_path / "copy")).write()
    assert audit(folder).to_json() == audit(clean).to_json()
