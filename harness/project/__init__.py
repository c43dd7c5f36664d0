"""Somebody's project, read from its files alone: nothing here runs its code, and nothing needs an engine."""
