"""The header `Harness-Due`: when the task of a request was due, if the request says so."""

import re
import time
from http import HTTPStatus

from fastapi import Request

from harness.inside.web.problem import Problem

DUE_HEADER = "Harness-Due"
"""The header in which a request says when its task was due."""

DUE_RANGE_S = 86_400.0
"""The greatest distance of that time from now, in seconds. Anything farther is not taken for a Unix time in seconds."""


async def check_due(request: Request) -> None:
    """Store in the scope when the task of this request was due, before the route does anything.

    Raises:
        Problem: the header is not one Unix time in seconds within a day of now (400).
    """
    said = request.headers.getlist(DUE_HEADER)
    if not said:
        return
    # A pattern, because `float` takes more than decimal numbers. The header given twice is an error too.
    due_t = float(said[0]) if len(said) == 1 and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", said[0]) else None
    if due_t is None or abs(due_t - time.time()) > DUE_RANGE_S:
        seen = ", ".join(said)[:100]
        detail = f"{DUE_HEADER} has to be a Unix time in seconds, within a day of now; this was {seen!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    request.scope["harness.due"] = due_t
