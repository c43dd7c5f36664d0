"""The web producer: an HTTP app that sends a task when it is asked to, and says 202 only if the broker confirmed it.

Run in a container as ``python -P -m harness.inside.web [ROUTES]``. ROUTES is a module with the app's own routes, an
APIRouter named `router`. A route hands its task in with `submit`:

    router = APIRouter()

    @router.post("/welcomes", status_code=202, dependencies=[accepts("application/json")])
    async def welcome(request: Request, customer: Customer) -> Response:
        return await submit(request, "shop.welcome", {"address": customer.address})

Of its own it has

    GET /health        200 as long as the process answers, whatever the broker does
    GET /tasks/{id}    what the result table says of a task
    GET /docs          all routes, to read and to try; the page needs nothing from anywhere else

A request may carry the header `Harness-Due`, a Unix time in seconds such as ``1795366773.25``: when its task was to be
sent, by the plan of a load test. The journal then counts the task's time from there.

Every error is a problem document (RFC 9457). A body is limited to BODY_LIMIT_BYTES, also one that does not say how
long it is; a route that reads the body itself may allow more with `allow_body`.
"""

from harness.inside.web.body import accepts, allow_body, content_type, media_type, unsupported
from harness.inside.web.desk import Taken, submit
from harness.inside.web.problem import NotSent, Problem, problems

# What a module of routes needs.
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
