import os

from sqlalchemy import Column, Integer, String, create_engine
from sqlalchemy.orm import declarative_base, sessionmaker

engine = create_engine(os.environ.get("INVOICES_DB", "sqlite:///invoices.sqlite3"))
Session = sessionmaker(bind=engine)
Base = declarative_base()


class Invoice(Base):
    __tablename__ = "invoices"

    number = Column(String(20), primary_key=True)
    cents = Column(Integer, nullable=False)


Base.metadata.create_all(engine)
