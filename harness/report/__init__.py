"""The presentation of runs."""
