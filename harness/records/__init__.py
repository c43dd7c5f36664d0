"""What is written down: expectations, journal lines, messages, verdicts.

It uses the standard library alone, because it runs in every container too.
"""
