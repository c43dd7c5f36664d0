"""The three lines that make a load test of a stack whose capacity is known."""

import waits

from harness.load import Load


class Waits(Load):
    """Tasks that wait."""

    scenario = waits.scenario
