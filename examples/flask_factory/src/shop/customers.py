from flask import Blueprint, request

from .tasks import send_welcome

customers = Blueprint("customers", __name__, url_prefix="/customers")


@customers.post("/")
def sign_up():
    result = send_welcome.delay(request.form["email"])
    return {"task": result.id}, 202
