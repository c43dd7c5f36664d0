"""The load test of the scenarios: `locust -f scenarios/load.py`, or with names of classes, only those."""

from types import MappingProxyType

from harness.load import Load
from scenarios import bulk_data, emails, schedules


class Emails(Load):
    """Receipts."""

    scenario = emails.scenario


class BulkData(Load):
    """Imports of small files."""

    scenario = bulk_data.scenario
    options = MappingProxyType({"rows": 200})
    weight = 0.02


class Schedules(Load):
    """Reminders for a moment in the future."""

    scenario = schedules.scenario
    weight = 0.2
