"""An app with brokers and tables of its own, and whose results are hard to read."""

import os
import smtplib
import time
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

app = Celery("recording")
app.conf.update(
    timezone="America/Los_Angeles",
    result_expires=3600,
    # The app's own brokers, which speak TLS.
    broker_read_url="amqp://reads.invalid//",
    broker_write_url="amqp://writes.invalid//",
    broker_use_ssl=True,
    # Of the app's own database, which the harness puts its file in place of.
    database_table_names={"task": "my_results", "group": "my_groups"},
    database_table_schemas={"task": "mine"},
    database_engine_options={"connect_args": {"sslmode": "require"}},
)

NO_TEXT = os.fsdecode(b"caf\xe9.csv")


@app.task(name="give")
def give(value: Any) -> Any:
    """Return a value."""
    return value


@app.task(name="file_name")
def file_name() -> str:
    """Return the name of a file that is no text."""
    return NO_TEXT


@app.task(name="skip", ignore_result=True)
def skip() -> None:
    """Say why nothing was done, with a name that is no text."""
    raise Ignore(f"no file {NO_TEXT}")


@app.task(name="short")
def short() -> None:
    """Take a moment."""
    time.sleep(0.02)


@app.task(name="post")
def post(address: str, subject: str) -> None:
    """Mail somebody, as most apps do: each mail has an id of its own."""
    message = EmailMessage()
    message["Message-ID"], message["Subject"], message["To"] = make_msgid(), subject, address
    message.set_content("Hello.")
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as client:
        client.send_message(message, from_addr="shop@example.com")


@app.task(name="pair")
def pair() -> tuple[int, str]:
    """Return what is no JSON by itself, and has a JSON value."""
    return 1, "two"


@app.task(name="thing")
def thing() -> object:
    """Return what has no JSON value."""
    return {1, 2}
