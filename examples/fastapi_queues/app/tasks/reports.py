from collections import defaultdict
from typing import Any

from app.celery_app import celery_app
from app.tasks.mails import send_report


@celery_app.task
def sales_report(address: str, sales: list[dict[str, Any]]) -> dict[str, float]:
    """Add up the sales of each region, and mail the sums."""
    totals: dict[str, float] = defaultdict(float)
    for sale in sales:
        totals[sale["region"]] += sale["amount"]
    lines = [f"{region}: {total:.2f}" for region, total in sorted(totals.items())]
    send_report.delay(address, "\n".join(lines))
    return dict(totals)
