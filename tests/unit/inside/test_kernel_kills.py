"""Whether the kernel killed a process for memory, by either version of control groups."""

from pathlib import Path

import pytest

from harness.inside.kernel_kills import KernelKills


@pytest.mark.parametrize("name", ["memory.events", "memory/memory.oom_control"])
def test_a_kill_counts_once(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("low 0\noom_kill 2\n")
    kills = KernelKills(tmp_path)
    assert not kills.is_more()
    file.write_text("low 0\noom_kill 3\n")
    assert kills.is_more()
    assert not kills.is_more()


@pytest.mark.parametrize("text", [None, "", "low 0\n", "oom_kill many\n", "oom_kill\n"])
def test_a_kernel_that_does_not_tell_has_killed_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "memory.events").write_text(text)
    assert not KernelKills(tmp_path).is_more()
