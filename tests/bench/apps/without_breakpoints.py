"""The agent as it was if nobody could hold a task: with the journal, and without any code at a moment."""

import sys
from pathlib import Path

from harness.inside import agent
from harness.records.moment import Moment


class NoBreakpoints:
    """Tells nobody of any moment."""

    def __init__(self, run_folder: Path, node: str) -> None:
        """Take what breakpoints take."""

    def connect(self) -> None:
        """Wrap nothing."""

    def reach(self, moment: Moment, task: str, name: str) -> None:
        """Go on."""

    def start(self, task_id: str, task: object) -> None:
        """Go on."""


if __name__ == "__main__":
    vars(agent)["Breakpoints"] = NoBreakpoints
    agent.main(sys.argv[1:])
