"""The shop's web routes: actions of customers and suppliers, as requests that each send one task.

`harness.inside.web` serves them. POST /emails mails the receipt of an order. POST /orders takes a file of orders, of
any size up to a limit, and imports it.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from harness import Expect
from harness.inside.web import (
    NotSent,
    Problem,
    Taken,
    accepts,
    allow_body,
    content_type,
    media_type,
    problems,
    submit,
    unsupported,
)
from harness.records.event import Kind
from scenarios.emails.prediction import expectation

if TYPE_CHECKING:
    from scenarios.emails.order import Order as ReceiptOrder

UPLOADS = Path(os.environ.get("WEB_UPLOADS", "/harness/run/app/uploads"))
"""The folder for files of orders. The workers must see them under the same path."""

UPLOAD_LIMIT_BYTES = int(os.environ.get("WEB_UPLOAD_LIMIT_BYTES", str(256 * 1024 * 1024)))
"""The longest body with a file of orders."""

_CHUNK_BYTES = 1024 * 1024

router = APIRouter()

Name = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$")]
"""A name that may stand in a Message-ID and in the name of a file."""
Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]+$"),
]
"""One line of text: a line break could end a header of the mail."""


def _mailable(address: str) -> str:
    if not address.rpartition("@")[0].isascii():
        raise ValueError("what stands before the @ has to be ASCII: the shop can write to no other address")
    return address


Email = Annotated[EmailStr, AfterValidator(_mailable)]
"""A syntactically valid address; the domain is not looked up."""


class _Model(BaseModel):
    # Strict: "3" is no quantity. An unknown member may be misspelt, so it is refused.
    model_config = ConfigDict(strict=True, extra="forbid")


class Customer(_Model):
    """The customer of an order."""

    name: Text
    email: Email


class Line(_Model):
    """One line of an order."""

    sku: Name
    title: Text
    quantity: int = Field(ge=1, le=10_000)
    unit_price_cents: int = Field(ge=0, le=100_000_000)


class Order(_Model):
    """An order for which a receipt is mailed, as `scenarios.emails.order.Order`."""

    id: Name = Field(default_factory=lambda: uuid.uuid4().hex, description="Made up if it is not given.")
    customer: Customer
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    lines: list[Line] = Field(min_length=1, max_length=100)


class ReceiptTaken(Taken):
    """The answer to an order."""

    order_id: str


class ImportTaken(Taken):
    """The answer to a file of orders."""

    import_id: str


@router.post(
    "/emails",
    status_code=202,
    response_model=ReceiptTaken,
    responses=problems(400, 413, 415, 422, 503),
    dependencies=[accepts("application/json")],
)
async def post_email(request: Request, order: Order) -> Response:
    """Mail the receipt of an order to its customer; the same order twice is one mail."""
    sent = cast("ReceiptOrder", order.model_dump())
    expect = expectation(sent)
    return await submit(
        request, "scenarios.emails.send_receipt", {"order": sent}, expect=expect, about={"order_id": order.id}
    )


_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "format": "binary"}, "import_id": {"type": "string"}},
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM, "encoding": {"file": {"contentType": "text/csv"}}},
        "text/csv": {"schema": {"type": "string"}},
    },
}


@router.post(
    "/orders",
    status_code=202,
    response_model=ImportTaken,
    responses=problems(400, 408, 413, 415, 422, 503, 507),
    openapi_extra={"requestBody": _BODY},
)
async def post_orders(
    request: Request, import_id: Annotated[Name | None, Query(description="Of a body that is no form.")] = None
) -> Response:
    """Import a file of orders: a form with the `file` and perhaps an `import_id`, or the file alone as the body."""
    allow_body(request, UPLOAD_LIMIT_BYTES)
    try:
        match content_type(request):
            case "text/csv":
                path = await _store(request.stream())
            case "multipart/form-data":
                path, import_id = await _store_form(request)
            case _:
                raise unsupported(request, "multipart/form-data", "text/csv")
    except UnicodeError as error:
        # The parser of forms passes errors of a few of Python's codecs, such as `undefined`, on to here.
        raise Problem(HTTPStatus.BAD_REQUEST, f"The form cannot be read in its charset: {error}.") from error
    except OSError as error:
        raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, f"The file cannot be kept: {error.strerror}.") from error
    name = import_id or uuid.uuid4().hex
    kwargs = {"path": str(path), "import_id": name}
    expect = Expect(effects=[f"row:import-{name}"])
    try:
        return await submit(
            request, "scenarios.bulk_data.import_orders", kwargs, expect=expect, about={"import_id": name}
        )
    except NotSent as error:
        # A task that may still run needs its file.
        if error.outcome is Kind.REFUSED:
            await _remove(path)
        raise


async def _store_form(request: Request) -> tuple[Path, str | None]:
    """Return the path of the stored file, and the import's id if the form has one."""
    async with request.form(max_files=1, max_fields=1) as form:
        unknown = sorted(form.keys() - {"file", "import_id"})
        if unknown:
            raise _invalid(unknown[0], "The form has a field that nobody knows.")
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise _invalid("file", "The form has no file in the field `file`.")
        if media_type(file.content_type) != "text/csv":
            seen = file.content_type or "no Content-Type"
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The file has to be text/csv; this was {seen}.")
        try:
            name = TypeAdapter(Name | None).validate_python(form.get("import_id"))
        except ValidationError as error:
            raise _invalid("import_id", error.errors()[0]["msg"]) from error
        return await _store(_chunks(file)), name


async def _chunks(file: Any) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


async def _store(chunks: AsyncIterator[bytes]) -> Path:
    """Write a file as it comes, so that it is never whole in memory. After an error, no part of it is left."""
    path = UPLOADS / f"{uuid.uuid4()}.csv"
    try:
        await _write(path, chunks)
    except BaseException:
        await _remove(path)
        raise
    return path


async def _write(path: Path, chunks: AsyncIterator[bytes]) -> None:
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    with await asyncio.to_thread(path.open, "xb") as file:
        size = 0
        async for chunk in chunks:
            size += await asyncio.to_thread(file.write, chunk)
    if not size:
        raise _invalid("file", "The file is empty.")


async def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        await asyncio.to_thread(path.unlink, missing_ok=True)


def _invalid(field: str, why: str) -> Problem:
    """Return the problem for an invalid form or file."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, why, errors=[{"at": f"body/{field}", "detail": why}])
