"""The web producer: an HTTP app that sends tasks on request, and answers 202 only if the broker confirmed the task.

Run in a container as ``python -P -m harness.inside.web [ROUTES]``. ROUTES is a module with the app's own routes, an
APIRouter named `router`. A route sends its task with `submit`:

    router = APIRouter()

    @router.post("/welcomes", status_code=202, dependencies=[accepts("application/json")])
    async def welcome(request: Request, customer: Customer) -> Response:
        return await submit(request, "shop.welcome", {"address": customer.address})

Its own routes are

    GET /health        200 as long as the process answers, regardless of the broker
    GET /tasks/{id}    the state of a task in the result table
    GET /docs          all routes, to read and to try; the page loads nothing from elsewhere

A request may carry the header `Harness-Due`, a Unix time in seconds such as ``1795366773.25``: when a load test planned
to send its task. The journal then counts the task's time from there.

Every error is a problem document (RFC 9457). A body is limited to BODY_LIMIT_BYTES, also one of undeclared length; a
route that reads the body itself may allow more with `allow_body`.
"""

from harness.inside.web.body import accepts, allow_body, content_type, media_type, unsupported
from harness.inside.web.problem import NotSent, Problem, problems
from harness.inside.web.task_sender import Taken, submit

# The names that a module of routes needs.
__all__ = [
    "NotSent",
    "Problem",
    "Taken",
    "accepts",
    "allow_body",
    "content_type",
    "media_type",
    "problems",
    "submit",
    "unsupported",
]
