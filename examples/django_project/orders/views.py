from functools import partial

from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .models import Order
from .tasks import confirm_order, mark_paid


@csrf_exempt
@require_POST
@transaction.atomic
def create_order(request):
    order = Order.objects.create(
        email=request.POST["email"],
        item=request.POST["item"],
        quantity=int(request.POST.get("quantity", 1)),
    )
    transaction.on_commit(partial(confirm_order.delay, order.pk))
    return JsonResponse({"order": order.pk}, status=201)


@csrf_exempt
@require_POST
def pay_order(request, order_id):
    order = get_object_or_404(Order, pk=order_id)
    mark_paid.delay(order.pk)
    return JsonResponse({"order": order.pk}, status=202)
