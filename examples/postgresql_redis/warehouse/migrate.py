"""Bring the database up to date: `python -m warehouse.migrate`. To repeat it does no harm."""

from sqlalchemy.dialects.postgresql import insert

from .database import Base, Item, engine

FIRST_ITEMS = [{"sku": "chair", "stock": 100}, {"sku": "table", "stock": 25}]


def main():
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Item).values(FIRST_ITEMS).on_conflict_do_nothing())
    print("The database is up to date.")


if __name__ == "__main__":
    main()
