from fastapi import FastAPI
from pydantic import BaseModel, Field

from app.tasks.mails import send_invitation
from app.tasks.reports import sales_report

app = FastAPI(title="Sales")


class Invitation(BaseModel):
    address: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    team: str


class Sale(BaseModel):
    region: str
    amount: float = Field(gt=0)


class ReportOrder(BaseModel):
    address: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    sales: list[Sale]


@app.post("/invitations", status_code=202)
def invite(invitation: Invitation) -> dict[str, str]:
    return {"task": send_invitation.delay(invitation.address, invitation.team).id}


@app.post("/reports", status_code=202)
def order_report(order: ReportOrder) -> dict[str, str]:
    sales = [sale.model_dump() for sale in order.sales]
    return {"task": sales_report.delay(order.address, sales).id}
