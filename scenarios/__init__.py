"""Apps as their users write them, each module with its tasks first and its scenario after them."""
