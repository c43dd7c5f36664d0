from datetime import timedelta
from smtplib import SMTPException

from celery import shared_task
from django.core.mail import send_mail
from django.utils import timezone

from .models import Order

PAY_WITHIN = timedelta(days=3)


@shared_task(autoretry_for=(SMTPException, OSError), retry_backoff=True, max_retries=5)
def send_order_confirmation(email, item, quantity=1):
    send_mail(
        subject="Your order",
        message=f"Thank you for your order: {quantity} x {item}.",
        from_email=None,
        recipient_list=[email],
    )
    return email


@shared_task
def confirm_order(order_id):
    """Mail the customer of an order in the database, and note when."""
    order = Order.objects.get(pk=order_id)
    send_order_confirmation.delay(order.email, order.item, order.quantity)
    order.confirmed_at = timezone.now()
    order.save(update_fields=["confirmed_at"])


@shared_task
def mark_paid(order_id):
    updated = Order.objects.filter(pk=order_id, status=Order.Status.NEW).update(status=Order.Status.PAID)
    return updated == 1


@shared_task
def cancel_unpaid_orders():
    too_old = Order.objects.filter(status=Order.Status.NEW, created_at__lt=timezone.now() - PAY_WITHIN)
    return too_old.update(status=Order.Status.CANCELLED)
