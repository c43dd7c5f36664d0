"""The three lines that make a load test of a scenario."""

import noop

from harness.load import Load


class Noop(Load):
    """Tasks that do nothing."""

    scenario = noop.scenario
