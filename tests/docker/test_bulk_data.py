"""Each finding of the import has an app that misbehaves on purpose and must turn red: in that finding and no other."""

import pytest

from harness import Drive, Verdict
from harness.running.run import play
from harness.stack.stack import Stack
from scenarios.bulk_data.scenario import scenario

pytestmark = pytest.mark.docker
ROW = "7-00002501"


def fault(name: str, *findings: str) -> object:
    marker = pytest.mark.stack(
        app="tests.docker.apps.faulty_bulk",
        env={**scenario.env, "FAULT": name, "ROW": ROW},
        promise=scenario.promise,
    )
    return pytest.param(set(findings), id=name, marks=marker)


@pytest.mark.parametrize(
    "findings",
    [
        fault("none"),
        fault("row lost", "rows-missing"),
        fault("row invented", "rows-extra"),
        fault("earlier row wins", "rows-differ"),
        fault("rejects forgotten", "rejects-differ"),
        fault("counted once more", "totals-differ"),
        fault("closed twice", "duplicated"),
        fault("group not saved", "group-differs"),
        fault("member not saved", "group-differs"),
    ],
)
def test_each_fault_turns_red_in_its_own_finding_and_no_other(stack: Stack, findings: set[str]) -> None:
    audit = play(scenario, stack, Drive(count=2, seed=7, options={"rows": 5000}))
    failing = {finding.code: finding for finding in audit.findings if finding.verdict is not Verdict.PASS}
    assert failing.keys() == findings, audit.text()
    assert audit.verdict is (Verdict.FAIL if findings else Verdict.PASS)
    if "rows-missing" in failing:
        # One row of five thousand, by its name.
        assert failing["rows-missing"].count == 1
        assert ROW in failing["rows-missing"].text
