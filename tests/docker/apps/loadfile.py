"""A locustfile of the tests."""

from harness.load import Load
from tests.docker.apps import loadable, loadable_leaks


class Echoes(Load):
    """What works."""

    scenario = loadable.scenario


class Leaks(Load):
    """What loses one task in ten."""

    scenario = loadable_leaks.scenario
