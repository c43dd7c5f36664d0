"""The containers, seen from outside."""
