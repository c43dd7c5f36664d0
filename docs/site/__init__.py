"""The documentation as a site: `nox -s docs` prepares its pages, lets Sphinx build them, and checks the result."""
