"""The durations of the stages of a task's life, and the figures derived from them."""
