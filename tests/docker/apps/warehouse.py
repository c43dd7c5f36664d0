"""An app that keeps its data in PostgreSQL and counts in Redis, whose URLs come from the environment."""

import os

import psycopg
import redis
from celery import Celery, Task, chord

app = Celery("warehouse")


@app.task(bind=True, name="stock.put")
def put(self: Task, article: str) -> int:
    """Add an article to the stock, and return how many calls there were."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("INSERT INTO stock VALUES (%s, %s)", (article, self.request.id))
    with redis.Redis.from_url(os.environ["CACHE"]) as cache:
        return int(cache.incr("calls"))


@app.task(name="stock.count")
def count(_: list[int]) -> int:
    """Return how many articles there are."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM stock").fetchone()
    return 0 if row is None else int(row[0])


@app.task(name="stock.refuse")
def refuse() -> None:
    """Fail."""
    raise LookupError("no such article")


@app.task(name="stock.deliver")
def deliver(articles: list[str]) -> int:
    """Put some articles into the stock, and have them counted."""
    chord([put.s(article) for article in articles])(count.s())
    return len(articles)


@app.task(name="stock.forget")
def forget(task: str) -> int:
    """Delete the row of a task's result, and return how many there were."""
    url = os.environ["CELERY_RESULT_BACKEND"].removeprefix("db+").replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        return connection.execute("DELETE FROM celery_taskmeta WHERE task_id = %s", (task,)).rowcount


def migrate() -> None:
    """Make the table."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE stock (article TEXT, task TEXT)")


if __name__ == "__main__":
    migrate()
