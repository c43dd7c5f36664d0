"""A shop imports its orders: a large CSV file becomes rows of the app's own database."""
