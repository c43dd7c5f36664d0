"""The load test of the scenarios: `locust -f scenarios/load.py`. Names of classes after it select only those."""

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
    """Reminders for a time in the future."""

    scenario = schedules
    weight = 0.2
