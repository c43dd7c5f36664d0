"""At the end of the tests, the table of all versions is printed."""

import pytest

from tests.versions.table import Row, lines, rows_key


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table."""
    config.stash[rows_key] = list[Row]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    rows = config.stash[rows_key]
    if rows:
        terminalreporter.section("versions")
        for line in lines(rows):
            terminalreporter.write_line(line)
