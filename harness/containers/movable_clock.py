"""A clock of a node that can be moved while the node runs, by libfaketime."""

from pathlib import Path

from harness.errors import UsageError

LIBRARY = "/opt/faketime/libfaketime.so.1"


class MovableClock:
    """The wall clock of one node. Its monotonic clock, by which programs measure waits, always is the real one."""

    def __init__(self, run_folder: Path, node: str) -> None:
        """Name the clock of a node of this run."""
        self._node = node
        self._path = Path("control", f"clock-{node}")
        self._file = run_folder / self._path

    def create(self) -> None:
        """Let it show the real time, from the next start of the node on."""
        self._file.parent.mkdir(exist_ok=True)
        self.move(0.0)

    def move(self, offset_s: float) -> None:
        """Let it be so many seconds ahead of the real time; the node's processes see it within about a second."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{offset_s:+.6f}s\n", encoding="ascii")
        draft.replace(self._file)

    def require(self) -> None:
        """Raise UsageError if the node was started without such a clock."""
        if not self._file.exists():
            raise UsageError(
                f"the clock of {self._node} cannot be moved while it runs: give the stack movable_clocks=True."
            )

    def env(self, run_inside: str) -> dict[str, str]:
        """Return the environment that gives a process this clock; `run_inside` is where it sees the run folder."""
        inside = f"{run_inside}/{self._path.as_posix()}"
        return {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": inside,
            "FAKETIME_CACHE_DURATION": "1",
            # The library's older and newer name of it.
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "HARNESS_CLOCK_FILE": inside,
        }
