"""The three lines that make a load test of a scenario, twice."""

from harness.load import Load
from tests.docker.apps import doubles, refusals


class Doubles(Load):
    """What workers that run elsewhere do well."""

    scenario = doubles.scenario


class Refusals(Load):
    """What they fail at now and then."""

    scenario = refusals.scenario
