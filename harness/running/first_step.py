"""The first request to the web producer's own routes that come with the harness."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """A first request to the routes of a module."""

    label: str
    """What it does, for a button."""
    path: str
    body: Json

    def command(self, web: str) -> str:
        """Return the shell command that sends it, to the web producer with this URL."""
        body = shlex.quote(json.dumps(self.body, ensure_ascii=False))
        return f"curl -i {web}{self.path} -H 'Content-Type: application/json' -d {body}"


FIRST_STEPS: Mapping[str, FirstStep] = MappingProxyType(
    {
        "scenarios.web": FirstStep(
            label="Send a receipt",
            path="/emails",
            body={
                "customer": {"name": "Zoë", "email": "zoe@example.com"},
                "currency": "EUR",
                "lines": [{"sku": "TEA-01", "title": "Sencha tea", "quantity": 2, "unit_price_cents": 1250}],
            },
        )
    }
)
"""The first request, by the module of the routes."""
