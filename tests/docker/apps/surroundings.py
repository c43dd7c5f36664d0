"""Tasks that need what is around a worker: the broker's heartbeats, the result store, a mail server, the time."""

import os
import smtplib
import time
from email.message import EmailMessage

from celery import Celery

app = Celery("surroundings")
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_heartbeat = float(os.environ.get("HEARTBEAT_S", "60"))
app.conf.broker_connection_retry_on_startup = True


@app.task
def work(pause_s: float = 0.0) -> str:
    """Take as long as this."""
    time.sleep(pause_s)
    return "done"


@app.task
def fill(mb: int) -> int:
    """Use so many MiB of memory."""
    return len(bytearray(mb * 2**20))


@app.task(autoretry_for=(smtplib.SMTPException,), default_retry_delay=0.2, max_retries=None)
def write_to(recipient: str) -> str:
    """Send a mail, again and again until the server takes it."""
    message = EmailMessage()
    message["To"], message["From"], message["Subject"] = recipient, "shop@example.com", "hello"
    message["Message-ID"] = f"<{recipient}>"
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        server.send_message(message)
    return recipient


@app.task
def read_clock() -> float:
    """Return the time by the worker's clock, Unix time in seconds."""
    return time.time()
