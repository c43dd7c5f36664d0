"""The quantiles of some values, each of them a value that occurred."""

from collections.abc import Iterable


def quantiles(values: Iterable[float], percents: Iterable[int]) -> dict[str, float]:
    """Return percentiles by name, such as `p99`, and the maximum as `max`; empty for no values.

    A percentile is the least value that at least this share of the values does not exceed.

    Args:
        values: in any order.
        percents: the shares, from 1 to 100.
    """
    ordered = sorted(values)
    if not ordered:
        return {}
    # In whole numbers: the result of a float calculation could be just above the right rank.
    at = {f"p{percent}": ordered[-(-percent * len(ordered) // 100) - 1] for percent in percents}
    return {**at, "max": ordered[-1]}
