"""An app whose task sends another one before or after the transaction is committed that writes its row."""

import os

import sqlalchemy as sa
from celery import Celery

app = Celery("committing")
ENGINE = sa.create_engine(os.environ["APP_DATABASE_URL"])
ORDERS = sa.Table("orders", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))


@app.task(name="order")
def order(number: int, when: str) -> None:
    """Write a row, and have it shipped: `before` the commit, `after` it, or before a `rollback`."""
    ORDERS.metadata.create_all(ENGINE)
    with ENGINE.connect() as connection:
        connection.execute(ORDERS.insert().values(id=number))
        if when != "after":
            ship.delay(number)
        if when == "rollback":
            connection.rollback()
        connection.commit()
    if when == "after":
        ship.delay(number)


@app.task(name="ship")
def ship(number: int) -> bool:
    """Look for the row."""
    with ENGINE.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).where(ORDERS.c.id == number)) == 1
