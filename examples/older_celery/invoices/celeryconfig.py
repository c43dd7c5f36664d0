import os

broker_url = os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//")
result_backend = "db+sqlite:///results.sqlite3"
result_expires = 24 * 60 * 60
task_serializer = "json"
accept_content = ["json"]
timezone = "UTC"
