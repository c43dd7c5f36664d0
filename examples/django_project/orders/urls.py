from django.urls import path

from . import views

urlpatterns = [
    path("", views.create_order, name="create-order"),
    path("<int:order_id>/pay/", views.pay_order, name="pay-order"),
]
