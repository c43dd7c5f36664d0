"""A quantile is a value that occurred: the least that its share of all values does not exceed."""

import pytest

from harness.measure.quantiles import quantiles


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], {}),
        ([7.0], {"p50": 7.0, "p99": 7.0, "max": 7.0}),
        ([3.0, 1.0, 2.0], {"p50": 2.0, "p99": 3.0, "max": 3.0}),
        ([*range(100, 0, -1)], {"p50": 50, "p99": 99, "max": 100}),
        ([*range(101, 0, -1)], {"p50": 51, "p99": 100, "max": 101}),
    ],
)
def test_it_is_found_in_values_of_any_order(values: list[float], found: dict[str, float]) -> None:
    assert quantiles(values, (50, 99)) == found
