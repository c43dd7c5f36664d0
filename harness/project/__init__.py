"""The settings of a project: what its app needs, and where each of them was said."""
