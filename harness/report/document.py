"""An HTML document that loads nothing: its scripts and styles are within, and its own policy allows no others."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.report.html import Html, tag

_ASSETS = Path(__file__).with_name("assets")


def document(title: str, *body: object, scripts: Sequence[str] = (), style: str = "", connects: bool = False) -> str:
    """Return a document.

    Args:
        title: of the document.
        body: the elements of its body.
        scripts: the texts of its scripts, which run at the end, in order.
        style: the text of its style sheet.
        connects: True if its scripts may ask the server that the document came from.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(scripts, style, connects=connects)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    made = tag("html", head, tag("body", body, (tag("script", Html(script)) for script in scripts)), lang="en")
    return f"<!doctype html>\n{made}\n"


def asset(name: str) -> str:
    """Return the text of a file that comes with the report."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str], style: str, *, connects: bool = False) -> str:
    """Return a policy under which a document loads nothing and runs these scripts alone."""
    allowed = " ".join(map(_hashed, scripts)) or "'none'"
    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    own = "; connect-src 'self'" if connects else ""
    return f"default-src 'none'; script-src {allowed}; style-src {_hashed(style)}; {rest}{own}"


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
