"""load.json: its form is that of every version, and a file of an older one can still be read."""

import json
from typing import Any

import pytest

from harness.errors import RecordError
from harness.measure.load_account import NOTHING_YET, Counts, LoadAccount, Sample
from harness.measure.stages import Stage

SUMMARY = {"count": 2, "mean_s": 0.1, "p50_s": 0.1, "p95_s": 0.2, "p99_s": 0.2, "max_s": 0.2}
FIGURES = {
    "rate": 20.0,
    "duration_s": 59.0,
    "workers": 2,
    "processes": 4,
    "offered": 1180,
    "dropped": 0,
    "tasks": 1180,
    "completed": 1180,
    "backlog_begin": 2,
    "backlog_end": 3,
    "stages": {"publish": SUMMARY, "e2e": SUMMARY},
    "lateness_p99_s": 0.001,
    "generator_cpu": 0.1,
    "stolen": 0.0,
    "is_open": True,
}
SAMPLE = {
    "t": 1000.0,
    "sent": 10,
    "accepted": 9,
    "refused": 1,
    "unknown": 0,
    "ended": 8,
    "failed": 0,
    "backlog": 1,
    "in_per_s": 9.0,
    "out_per_s": 8.0,
    "begun_on": {"worker-1": 8},
    "stages": {
        "publish": {"count": 9, "p50": 1.0, "p95": 1.5, "p99": 1.5, "max": 2},
        "queue": {},
        "run": {},
        "store": {},
        "e2e": {},
    },
    "up": {"worker-1": True},
}
FAULT = {
    "planned": "kill-worker@20s+5s",
    "fault": "kill-worker",
    "node": "worker-1",
    "injected_t": 1000.5,
    "healed_t": 1006.0,
    "overlapped": 1,
    "tasks": ["0ee7bddd"],
    "redelivered": 1,
    "missing": None,
    "error": None,
    "text": "kill-worker@20s+5s: worker-1 was killed.",
    "healing_t": 1005.5,
    "recovery": {
        "noticed_s": 0.5,
        "reconnected_s": 1.5,
        "first_task_s": 1.75,
        "backlog_s": 7.5,
        "empty_s": None,
        "throughput": 0.98,
        "redelivered": 1,
    },
}
PROBE = {
    "workers": 1,
    "rate": 400.0,
    "completed_per_s": 399.5,
    "e2e_p50_s": 0.0046,
    "e2e_p99_s": 5.43,
    "backlog_growth": 12,
    "is_valid": True,
    "why_not": None,
}
FILE: dict[str, Any] = {
    "format": 1,
    "is_open": True,
    "about": {"rate": "20", "stages": None, "arrival": "constant", "via": "broker", "loop": "open"},
    "exit_code": 0,
    "reason": "every task is accounted for, as it was promised.",
    "invalid": ["the generator was late."],
    "objectives": [{"text": "e2e p99 < 500 ms", "figure_s": None, "holds": None}],
    "bottleneck": None,
    "figures": FIGURES,
    "legs": [FIGURES],
    "probes": [PROBE],
    "stages": {"publish": SUMMARY, "e2e": SUMMARY},
    "backlog_max": 17,
    "workers": {"worker-1": 900},
    "faults": [FAULT, {name: value for name, value in FAULT.items() if name != "redelivered"}],
    "drained_s": 0.42,
    "counts": {
        "offered": 12,
        "sent": 10,
        "dropped": 2,
        "done": 9,
        "broken": 1,
        "accepted": 8,
        "refused": 1,
        "unknown": 1,
    },
    "search": None,
    "hdr": {"publish": "HISTF", "e2e": "HISTF"},
    "samples": [SAMPLE, {name: value for name, value in SAMPLE.items() if name != "up"}],
}
FOUND = {
    "probes": [FIGURES],
    "bottleneck": {"what": "run", "sentence": "The limit is running tasks."},
    "text": "Found.",
}
SEARCHES = [
    {"knee": {"rate": 400.0, "above": None, "is_at_least": True, "sweep": [FIGURES], **FOUND}, "text": "Found."},
    {"workers": {"count": None, "rate": 400.0, "best_per_s": 300.5, **FOUND}, "text": "Found."},
]


@pytest.mark.parametrize("search", [None, *SEARCHES])
def test_a_file_is_written_as_it_was_read(search: Any) -> None:
    file = {**FILE, "search": search}
    written = LoadAccount.from_json(file).to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == file
    assert list(written) == list(file)


def test_a_file_of_an_older_version_is_read() -> None:
    figures = {name: value for name, value in FIGURES.items() if name not in {"stolen", "is_open"}}
    old = {name: value for name, value in FILE.items() if name not in {"legs", "hdr", "samples"}}
    account = LoadAccount.from_json({**old, "figures": figures, "forgotten": 1})
    assert account.figures == LoadAccount.from_json(FILE).figures
    assert account.samples == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"counts": {"sent": "ten"}}, "`sent` of Counts should be a whole number, and is 'ten'"),
        ({"figures": {}}, "Figures has no `rate`"),
        ({"stages": {"nowhere": SUMMARY}}, "`stages` of LoadAccount should be one of publish, queue, run, store, e2e"),
        ({"samples": [{"stages": {}}]}, "Sample has no `t`"),
        ({"samples": ["one"]}, "Sample should be an object"),
    ],
)
def test_a_file_that_is_none_is_an_error_that_names_what_was_seen(changed: Any, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        LoadAccount.from_json({**FILE, **changed})


def test_counts_of_several_add_up() -> None:
    one = Counts(offered=3, sent=2, dropped=1)
    assert sum([one, one], Counts(broken=1)) == Counts(offered=6, sent=4, dropped=2, broken=1)


def test_before_anything_was_seen_every_stage_is_empty() -> None:
    members = NOTHING_YET.to_json()
    assert members["stages"] == {stage.value: {} for stage in Stage}
    assert Sample.from_json(members) == NOTHING_YET
