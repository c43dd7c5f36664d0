import os
import smtplib
from email.mime.text import MIMEText

from celery import chain, chord

from .celery import app
from .models import Invoice, Session


@app.task
def price(line):
    return line["quantity"] * line["cents"]


@app.task
def add_up(prices):
    return sum(prices)


@app.task
def book(cents, number):
    """Store an invoice. To store it again changes nothing."""
    with Session.begin() as session:
        session.merge(Invoice(number=number, cents=cents))
    return cents


@app.task(bind=True, max_retries=4)
def send(self, cents, number, address):
    message = MIMEText(f"Please pay {cents / 100:.2f}.")
    message["From"] = "invoices@example.com"
    message["To"] = address
    message["Subject"] = f"Invoice {number}"
    try:
        with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), timeout=30) as server:
            server.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error
    return number


@app.task
def issue(number, lines, address):
    """Add up the lines, store the invoice, and mail it."""
    total = chord((price.s(line) for line in lines), add_up.s())
    chain(total, book.s(number), send.s(number, address)).apply_async()
