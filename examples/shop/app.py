"""A plain Celery app: it mails each new customer. It does not know about the harness."""

import os
import smtplib
from email.message import EmailMessage

from celery import Celery

app = Celery("shop")
# A task whose worker dies is delivered again. Without this line it is lost: see test_shop.py.
app.conf.task_acks_late = True


@app.task(name="shop.welcome")
def welcome(address: str) -> str:
    """Mail a customer, and return the address."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", address, "Welcome"
    message.set_content("Good to have you.")
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        server.send_message(message)
    return address
