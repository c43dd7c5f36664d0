"""The containers, as the host process handles them."""
