"""The lines of the logs that a report shows: those of the seconds of interest, and the last ones."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.report.run_logs import read_logs

T = datetime(2026, 1, 2, 3, 4, 5, 600_000, UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "t"),
    [
        ("[2026-01-02 03:04:05,600: INFO/MainProcess] ready", T),
        ("2026-01-02 03:04:05.600000+00:00 [info] <0.1.0> up", T),
        ("2026-01-02 05:04:05.600+02:00 up", T),
        ("2026-01-02T03:04:05.6Z up", T),
        ("2026-01-02 03:04:05 up", T - 0.6),
        ("2026-13-42 03:04:05 up", None),
        ("  File 'a.py'", None),
        ("", None),
    ],
)
def test_a_lines_time_is_read_as_each_kind_of_node_writes_it(tmp_path: Path, line: str, t: float | None) -> None:
    (tmp_path / "worker-1.log").write_text(f"{line}\n")
    ((said,),) = [log.lines for log in read_logs(tmp_path, [])]
    assert said.t == (None if t is None else pytest.approx(t))


def test_a_line_without_a_time_belongs_to_the_line_before(tmp_path: Path) -> None:
    (tmp_path / "worker-1.log").write_text("[2026-01-02 03:04:05,600: ERROR/a] no\nTraceback\n")
    (log,) = read_logs(tmp_path, [])
    assert [line.t for line in log.lines] == [pytest.approx(T)] * 2


def test_of_a_long_log_the_lines_of_some_seconds_and_the_last_ones_are_shown(tmp_path: Path) -> None:
    lines = [f"2026-01-02 03:{second // 60:02}:{second % 60:02}.000+00:00 line {second}" for second in range(3_000)]
    (tmp_path / "broker.log").write_text("\n".join(lines))
    begin_t = datetime(2026, 1, 2, 3, 0, 10, tzinfo=UTC).timestamp()
    (log,) = read_logs(tmp_path, [(begin_t, begin_t + 2), (begin_t + 1, begin_t + 3)])
    assert [line.text[-7:] for line in log.lines[:4]] == ["line 10", "line 11", "line 12", "line 13"]
    assert log.lines[4].text.endswith("line 2700")
    assert (len(log.lines), log.total, log.node) == (304, 3_000, "broker")


def test_a_long_line_is_shortened(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"x" * 1_000 + b"\xff\n")
    ((line,),) = [log.lines for log in read_logs(tmp_path, [])]
    assert line.text == "x" * 400 + "…"


def test_a_log_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    (log,) = read_logs(tmp_path, [])
    assert log.total == -1
    assert "cannot be read" in log.lines[-1].text
