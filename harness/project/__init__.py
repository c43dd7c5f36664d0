"""A project's own files, read without an engine: what it needs, and how it wants to be run."""
