"""The load test of the scenarios: `locust -f scenarios/load.py`, or with names of classes, only those."""

from types import MappingProxyType

from harness.load import Load
from scenarios.bulk_data.scenario import scenario as bulk_data
from scenarios.emails.scenario import scenario as emails
from scenarios.schedules.scenario import scenario as schedules


class Emails(Load):
    """Receipts."""

    scenario = emails


class BulkData(Load):
    """Imports of small files."""

    scenario = bulk_data
    options = MappingProxyType({"rows": 200})
    weight = 0.02


class Schedules(Load):
    """Reminders for a moment in the future."""

    scenario = schedules
    weight = 0.2
