from celery import Celery

app = Celery("invoices", include=["invoices.tasks"])
app.config_from_object("invoices.celeryconfig")
