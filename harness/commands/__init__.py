"""The commands of `harness`: a file each, and what they share."""
