"""Error answers to requests: problem documents (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from harness.records.event import Kind
from harness.records.values import Json

RETRY_AFTER_S = 5
"""Seconds after which to try again, if the broker did not take a task."""

_SHOWN_ERRORS = 20
_PROBLEM = "application/problem+json"


class Problem(HTTPException):
    """An error answer to a request; `more` are further members of the problem document."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **more: Json
    ) -> None:
        """Create the error; `detail` is a sentence for the client."""
        super().__init__(status, detail, dict(headers or {}))
        self.more = more


class NotSent(Problem):
    """A task that the broker did not confirm."""

    def __init__(self, outcome: Kind, detail: str, *, retry_after_s: int = RETRY_AFTER_S, **more: Json) -> None:
        """Create the error; `outcome` is REFUSED if the broker certainly does not have the task, else UNKNOWN."""
        headers = {"Retry-After": str(retry_after_s)}
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers, outcome=outcome.value, **more)
        self.outcome = outcome


class ProblemDocument(BaseModel):
    """The form of every error (RFC 9457)."""

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(default=[], description="What is wrong, and `at` which place of the request.")
    outcome: str | None = Field(default=None, description="`refused`, or `unknown`: the broker may have the task.")
    reason: str | None = Field(default=None, description="What was seen of the broker.")
    task_id: str | None = Field(default=None, description="Where the outcome is unknown: the task to ask for.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the errors that a route can answer with."""
    content = {_PROBLEM: {"schema": ProblemDocument.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


async def on_error(_request: Request, error: Exception) -> Response:
    """Answer an exception that was raised; the server logs unexpected ones."""
    status = HTTPStatus(getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR))
    detail = str(getattr(error, "detail", "The request could not be handled; the log says more."))
    return _document(status, detail, getattr(error, "headers", None), **getattr(error, "more", {}))


async def on_invalid(_request: Request, error: Exception) -> Response:
    """Answer a request that does not have the form that its route declares."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if found and found[0]["type"] == "json_invalid":
        position, why = found[0]["loc"][-1], found[0].get("ctx", {}).get("error", "")
        said = [{"at": f"body/{position}", "detail": str(why)}]
        return _document(HTTPStatus.BAD_REQUEST, f"The body is no JSON at character {position}.", errors=said)
    errors = [{"at": "/".join(map(str, one["loc"])), "detail": str(one["msg"])} for one in found[:_SHOWN_ERRORS]]
    places = "one place" if len(found) == 1 else f"{len(found)} places"
    detail = f"The request is not as it has to be, in {places}."
    return _document(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _document(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **more: Json) -> Response:
    body = {"title": status.phrase, "status": status.value, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type=_PROBLEM)
