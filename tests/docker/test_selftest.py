"""`harness selftest` with a real engine: each defect is found, in its own fate and finding and in no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.finding_codes import Code
from harness.records.verdict import Fate

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]


def test_the_auditor_finds_each_planted_defect_and_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "selftest", "--json", "--runs", str(tmp_path)]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    wrong = [plant for plant in said["plants"] if plant["result"] != "found"]
    assert (done.returncode, said["verdict"], wrong) == (0, "pass", [])
    findings = {code for plant in said["plants"] for code in plant["found"]["findings"]}
    fates = {fate for plant in said["plants"] for fate, count in plant["found"]["fates"].items() if count > 0}
    assert findings == {code.value for code in Code}
    assert fates == {fate.value for fate in Fate} - {"ok"}
    assert said["planted"] == said["found"] == len(said["plants"]) >= 40
