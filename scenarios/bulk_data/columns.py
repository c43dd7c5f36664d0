"""The columns of a file of orders: all that the import and its prediction share."""

COLUMNS = ("order_id", "customer_email", "sku", "quantity", "unit_price_cents", "ordered_at")
"""What the header must name, in any order; columns beside them are passed over."""
