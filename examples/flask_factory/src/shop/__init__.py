import os

from celery import Celery, Task
from flask import Flask


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_mapping(
        MAIL_SERVER=os.environ["MAIL_SERVER"],
        MAIL_PORT=int(os.environ["MAIL_PORT"]),
        MAIL_DEFAULT_SENDER="shop@example.com",
        CELERY={
            "broker_url": os.environ["CELERY_BROKER_URL"],
            "task_ignore_result": True,
            "task_acks_late": True,
        },
    )
    app.config.update(config or {})
    init_celery(app)

    from .customers import customers

    app.register_blueprint(customers)
    return app


def init_celery(app):
    class TaskInContext(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=TaskInContext)
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    app.extensions["celery"] = celery
    return celery
