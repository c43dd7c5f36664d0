"""A leg of a load test that never was: its counts, and its figures."""

from harness.loadtest.messages import LegCounts
from harness.measure.figures import Figures
from harness.measure.load_account import Counts
from harness.measure.stages import Stage, Summary

COUNTS = Counts(offered=12, sent=10, dropped=2, done=9, broken=1, accepted=8, refused=1, unknown=1)
"""The counts of all generators, which add up."""
LEG = LegCounts(
    rate=10.0, is_open=True, offered=2, dropped=0, lateness_p99_s=0.001, cpu=0.2, stolen=0.0, until_t=1003.0
)
"""The counts of a leg that ended at 1003."""
VALID = Figures(
    rate=10.0,
    duration_s=10.0,
    workers=1,
    processes=2,
    offered=100,
    dropped=0,
    tasks=100,
    completed=100,
    backlog_begin=0,
    backlog_end=0,
    stages={Stage.E2E: Summary(count=100, mean_s=0.1, p50_s=0.1, p95_s=0.2, p99_s=0.3, max_s=0.4)},
    lateness_p99_s=0.001,
    generator_cpu=0.1,
)
"""The figures of ten seconds at ten arrivals a second, of a valid load that was sustained."""
