"""The shop: an app, and what its users do."""
