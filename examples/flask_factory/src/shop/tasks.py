import smtplib
from email.message import EmailMessage

from celery import shared_task
from flask import current_app


@shared_task(autoretry_for=(smtplib.SMTPException, OSError), retry_backoff=2, max_retries=5)
def send_welcome(address):
    message = EmailMessage()
    message["From"] = current_app.config["MAIL_DEFAULT_SENDER"]
    message["To"] = address
    message["Subject"] = "Welcome"
    message.set_content("Good to have you.")
    with smtplib.SMTP(current_app.config["MAIL_SERVER"], current_app.config["MAIL_PORT"], timeout=30) as server:
        server.send_message(message)
