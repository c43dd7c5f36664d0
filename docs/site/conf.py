"""Sphinx's settings. The pages lie in a folder that `docs/site/prepare.py` has written."""

from typing import Any

project = "Celery Harness"
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Anchors as a code host makes them; a link to one that does not exist is a warning, and so an error.
myst_heading_anchors = 4
# A block without a language is shown as it stands.
highlight_language = "text"

# Docstrings name things in single backquotes.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
toc_object_entries = False

html_theme = "furo"
html_title = project
html_show_sphinx = False
html_copy_source = False

_COLON = "\ue000"
"""Stands for a colon. Of the docstring of an attribute, napoleon takes what is before a colon for the type."""


def setup(app: Any) -> None:
    """Keep napoleon, which comes at 500, from the colons of attributes."""

    def hide(_app: Any, what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
        if what in {"attribute", "data", "property"}:
            lines[:] = [line.replace(":", _COLON) for line in lines]

    def show(_app: Any, _what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = [line.replace(_COLON, ":") for line in lines]

    app.connect("autodoc-process-docstring", hide, priority=400)
    app.connect("autodoc-process-docstring", show, priority=600)
