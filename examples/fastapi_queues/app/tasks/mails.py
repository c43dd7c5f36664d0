import os
import smtplib
from email.message import EmailMessage

from app.celery_app import celery_app

MAIL_FROM = os.environ["MAIL_FROM"]


@celery_app.task(autoretry_for=(smtplib.SMTPException, OSError), retry_backoff=True, max_retries=5)
def send_invitation(address: str, team: str) -> str:
    send(address, f"Join {team}", f"You are invited to the team {team}.")
    return address


@celery_app.task(autoretry_for=(smtplib.SMTPException, OSError), retry_backoff=True, max_retries=5)
def send_report(address: str, text: str) -> str:
    send(address, "Your report", text)
    return address


def send(address: str, subject: str, text: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = MAIL_FROM, address, subject
    message.set_content(text)
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), timeout=30) as server:
        server.send_message(message)
