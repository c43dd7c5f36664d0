"""A shop mails its receipts.

`send_receipt` is acknowledged late, retried while the mail server is busy or away, and may therefore run more than
once. An outbox in the app's own database hides that from the customers: a run claims the mail before it sends it and
records it afterwards. A run that finds the mail recorded sends nothing and returns the same result.

One window stays open, because no transaction spans a mail server: between the server's 250 and the record. So a mail
is delivered at least once. It is delivered twice only if the worker, the server or the connection between them dies
in that window, or the database refuses the record.
"""

import functools
import uuid
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scenarios.app import app, ask_again, database
from scenarios.emails.limits import BACKOFF_LIMIT_S, HARD_LIMIT_S, LOCK_TIMEOUT_S, SOFT_LIMIT_S
from scenarios.emails.mail_server import MailDeferred, MailRefused, send
from scenarios.emails.order import Order
from scenarios.emails.outbox import ClaimHeld, Outbox
from scenarios.emails.receipt import render


def send_once(message: EmailMessage, outbox: Outbox, *, send: Callable[[EmailMessage], None] = send) -> None:
    """Send a mail unless the outbox says that it was sent; record it in the outbox afterwards.

    On any error before the server has accepted the mail, the claim is released, so that the next run need not wait
    for the lease.

    Raises:
        ClaimHeld: another run is sending it, or died doing so less than a lease ago.
        MailRefused, MailDeferred: as `send`.
    """
    key = str(message["Message-ID"]).strip("<>")
    run = uuid.uuid4().hex
    taken = False
    try:
        if not outbox.claim(key, run):
            return
        send(message)
        taken = True
        outbox.record_sent(key, run)
    except SoftTimeLimitExceeded:
        if not taken:
            outbox.release(key, run)
            raise
        # The mail is sent. A late record is better than a second mail; this limit is raised only once, and the
        # hard one bounds what follows.
        outbox.record_sent(key, run)
    except BaseException:
        # Also for a SystemExit during the conversation, which is how a pool process is told to end.
        if not taken:
            outbox.release(key, run)
        raise


@functools.cache
def _outbox_of(engine: Engine) -> Outbox:
    return Outbox(engine)


@app.task(
    bind=True,
    name="scenarios.emails.send_receipt",
    acks_late=True,
    max_retries=12,
    default_retry_delay=5,
    soft_time_limit=SOFT_LIMIT_S,
    time_limit=HARD_LIMIT_S,
    throws=(MailRefused,),
)
def send_receipt(self: Task, order: Order) -> dict[str, Any]:
    """Mail the receipt of an order to its customer, once as far as SMTP allows.

    A 4xx and a lost connection are retried with backoff and jitter; a 5xx fails at once with MailRefused.

    Returns:
        ``{"message_id": ..., "recipients": [...]}``, the same from every run for the same order.
    """
    message = render(order, task_id=self.request.id)
    try:
        send_once(message, _outbox_of(database(lock_timeout_s=LOCK_TIMEOUT_S)))
    except (MailDeferred, OperationalError, PoolTimeout) as error:
        pause_s = get_exponential_backoff_interval(1, self.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
        raise ask_again(self, pause_s, error) from error
    except ClaimHeld as held:
        # The margin allows for a difference of two clocks, and keeps the retry from coming too early.
        raise ask_again(self, held.args[0] + 0.5, held) from held
    return {"message_id": str(message["Message-ID"]).strip("<>"), "recipients": [order["customer"]["email"]]}
