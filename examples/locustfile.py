"""The scenario under load: `locust -f locustfile.py --headless --rate 50 -t 30s`."""

from shop import welcomes

from harness.load import Load


class Customers(Load):
    """New customers, at a rate."""

    scenario = welcomes.scenario
