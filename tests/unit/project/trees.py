"""Small projects, as files."""

from collections.abc import Mapping
from pathlib import Path

PLAIN = {
    "shop/__init__.py": "",
    "shop/app.py": """
from celery import Celery

app = Celery("shop")

@app.task(name="shop.welcome")
def welcome(address):
    return address
""",
}
DJANGO = {
    "manage.py": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
from django.core.management import execute_from_command_line
""",
    "config/__init__.py": "from .celery import app as celery_app\n__all__ = ('celery_app',)\n",
    "config/celery.py": """
import os
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f"Request: {self.request!r}")
""",
    "config/settings.py": """
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
INSTALLED_APPS = ["django_celery_beat", "orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
EMAIL_HOST = os.environ.get("EMAIL_HOST", "localhost")
EMAIL_PORT = int(os.environ.get("EMAIL_PORT", 25))
""",
    "orders/__init__.py": "",
    "orders/tasks.py": """
from celery import shared_task

@shared_task
def ship(order):
    return order
""",
}
FLASK = {
    "pyproject.toml": '[project]\nname = "blog"\nversion = "1"\n',
    "src/blog/__init__.py": """
from celery import Celery, Task
from flask import Flask

def create_app():
    app = Flask(__name__)
    celery_init_app(app)
    return app

def celery_init_app(app):
    celery_app = Celery(app.name, task_cls=Task)
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app
""",
    "src/blog/make_celery.py": """
from blog import create_app

flask_app = create_app()
celery_app = flask_app.extensions["celery"]
""",
    "src/blog/tasks.py": """
from celery import shared_task

@shared_task(ignore_result=False)
def add(a, b):
    return a + b
""",
}
FASTAPI = {
    "app/__init__.py": "",
    "app/main.py": "from fastapi import FastAPI\nfrom app.worker.tasks import resize\napp = FastAPI()\n",
    "app/worker/__init__.py": "",
    "app/worker/celery_app.py": """
import os
from celery import Celery as Queueing

celery_app = Queueing("worker", broker=os.environ["BROKER_URL"], include=["app.worker.tasks"])
celery_app.conf.task_routes = {"app.worker.tasks.resize": {"queue": "images"}, "*.mail": {"queue": "mails"}}
""",
    "app/worker/tasks.py": """
from app.worker.celery_app import celery_app

@celery_app.task
def resize(path):
    return path

@celery_app.task
def ping():
    return "pong"
""",
}


def made(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write the files of a project, and return its folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
