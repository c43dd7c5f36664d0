import os

from redis import Redis
from sqlalchemy import select

from .database import Item, Session
from .worker import app

redis = Redis.from_url(os.environ["REDIS_URL"])


@app.task
def pick(sku, quantity=1):
    """Take something off its shelf, and return how much is left."""
    with redis.lock(f"shelf:{sku}", timeout=30), Session.begin() as session:
        item = session.get_one(Item, sku)
        item.stock -= quantity
        left = item.stock
    redis.incrby("picked", quantity)
    return left


@app.task
def refill(sku, quantity):
    with redis.lock(f"shelf:{sku}", timeout=30), Session.begin() as session:
        item = session.get_one(Item, sku)
        item.stock += quantity
        return item.stock


@app.task
def stock():
    """Return the stock of all items."""
    with Session() as session:
        return dict(session.execute(select(Item.sku, Item.stock)).tuples().all())


@app.task
def picked():
    return int(redis.get("picked") or 0)
