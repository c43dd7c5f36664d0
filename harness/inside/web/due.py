"""When the task of a request was to be sent, if the request says so: the header `Harness-Due`."""

import re
import time
from http import HTTPStatus

from fastapi import Request

from harness.inside.web.problem import Problem

DUE_HEADER = "Harness-Due"
"""By which a request says when its task was to be sent."""

DUE_RANGE_S = 86_400.0
"""How far from now that may be; what is farther is no Unix time in seconds."""


async def check_due(request: Request) -> None:
    """Keep when the task of this request was to be sent, before anything is done that would have to be undone."""
    said = request.headers.getlist(DUE_HEADER)
    if not said:
        return
    # More than `float` takes would be no decimal number; twice the header is none either.
    due_t = float(said[0]) if len(said) == 1 and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", said[0]) else None
    if due_t is None or abs(due_t - time.time()) > DUE_RANGE_S:
        seen = ", ".join(said)[:100]
        detail = f"{DUE_HEADER} has to be a Unix time in seconds, within a day of now; this was {seen!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    request.scope["harness.due"] = due_t
