"""The state of a task in the result table."""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from harness.audit.results import Row, decode
from harness.errors import ResultsError
from harness.inside.web.problem import RETRY_AFTER_S, Problem

if TYPE_CHECKING:
    from harness.inside.web.task_sender import TaskSender

_log = logging.getLogger("harness.web")


class TaskState(BaseModel):
    """The known state of a task."""

    task_id: str
    status: str = Field(description="As Celery recorded it; PENDING if it has not yet.")
    confirmed: bool | None = Field(description="Whether the broker confirmed it; null if it was not sent here.")
    result: Any = Field(default=None, description="Of a SUCCESS what the task returned, else what Celery recorded.")
    undecoded: str | None = Field(default=None, description="Why the result is not shown.")


async def task_state(request: Request, response: Response, task_id: str) -> TaskState:
    """Return the state of a task in the result table. A result is shown if it is JSON, and otherwise never decoded."""
    desk: TaskSender = request.app.state.desk
    # The memory of what was sent is read first: a row that is written in between is found.
    confirmed = desk.confirmed(task_id)
    try:
        row = await asyncio.to_thread(desk.results.row, task_id)
    except ResultsError as error:
        _log.error("%s", error)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The results cannot be read now.", headers=headers) from error
    response.headers["Cache-Control"] = "no-store"
    if row is None and confirmed is None:
        raise Problem(HTTPStatus.NOT_FOUND, "No such task was sent here, and none has a row in the result table.")
    if row is None:
        return TaskState(task_id=task_id, status="PENDING", confirmed=confirmed)
    return _recorded(row, confirmed)


def _recorded(row: Row, confirmed: bool | None) -> TaskState:  # noqa: FBT001 - as it stands in the answer.
    """Return the state in a row, with the result, or with the reason why it is not shown."""
    known = TaskState(task_id=row.task, status=row.status, confirmed=confirmed, result=None, undecoded=None)
    try:
        state = known.model_copy(update={"result": decode(row)})
        # Python reads and writes NaN and Infinity, which JSON does not have.
        json.dumps(state.result, allow_nan=False)
        # Lone surrogates, and values nested hundreds of levels deep, can be read and not be written.
        state.model_dump_json()
    except (ResultsError, ValueError, RecursionError) as error:
        return known.model_copy(update={"undecoded": f"It cannot be shown as JSON: {error}"})
    return state
