"""The columns of a file of orders. The import and its prediction share nothing else."""

COLUMNS = ("order_id", "customer_email", "sku", "quantity", "unit_price_cents", "ordered_at")
"""The columns that the header must name, in any order; other columns are ignored."""
