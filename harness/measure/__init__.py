"""How long the stages of a task's life took, and the figures that are made of it."""
