"""The app: its own routes, and those of the app under test."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_swagger import patch_fastapi  # type: ignore[import-untyped] # It says nothing of its types.

from harness.inside.web.body import LimitBodies
from harness.inside.web.due import check_due
from harness.inside.web.problem import on_error, on_invalid, problems
from harness.inside.web.task_sender import TaskSender
from harness.inside.web.task_state import task_state


async def _health() -> dict[str, str]:
    """Report that the process answers. It does not check the broker."""
    return {"status": "ok"}


def create_app(desk: TaskSender, router: APIRouter | None = None, *, title: str = "Web producer") -> FastAPI:
    """Return the app, with its own routes and those of `router`."""
    statuses = [status.value for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST]
    app = FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        exception_handlers={RequestValidationError: on_invalid, **dict.fromkeys(statuses, on_error)},
    )
    app.state.desk = desk
    app.add_middleware(LimitBodies)
    for method, listed in ((app.get, True), (app.head, False)):
        method("/health", include_in_schema=listed)(_health)
        method(
            "/tasks/{task_id}",
            include_in_schema=listed,
            response_model_exclude_unset=True,
            responses=problems(404, 503),
        )(task_state)
    if router is not None:
        app.include_router(router, dependencies=[Depends(check_due)])
    # By default the page has a server on the internet validate its document.
    patch_fastapi(app, swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True})
    return app
