"""The records of a run: expectations, journal lines, messages, verdicts.

It uses the standard library alone, because it runs in every container too.
"""
