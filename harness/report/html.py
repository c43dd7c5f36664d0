"""HTML in which every text is escaped, unless it was made here."""

import html
from collections.abc import Iterable

from harness.printable import printable

Attribute = str | int | float | bool | None


class Html(str):
    """A text that is HTML. Every other text is escaped where it meets one of these."""

    __slots__ = ()


_EMPTY = frozenset({"br", "col", "hr", "input", "link", "meta"})


def tag(name: str, /, *children: object, **attributes: Attribute) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: texts and numbers, which are escaped; elements; iterables of these; None, which is left out.
        attributes: with `_` for `-`, and a final `_` for a name that Python reserves, such as `class_`. True is an
            attribute without a value; None and False leave it out.
    """
    said = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in _EMPTY:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(children)}</{name}>")


def join(children: object) -> Html:
    """Return children one after another, each text among them escaped."""
    if children is None:
        return Html()
    if isinstance(children, Html):
        return children
    if isinstance(children, Iterable) and not isinstance(children, str):
        return Html("".join(map(join, children)))
    return Html(html.escape(printable(str(children))))


def _attribute(name: str, value: Attribute) -> str:
    spelled = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {spelled}"
    return f' {spelled}="{html.escape(printable(str(value)))}"'


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[object]], **attributes: Attribute) -> Html:
    """Return a table; the first cell of a row is its head. It can be scrolled by keyboard where it is too wide."""
    body = [
        tag("tr", (tag("td", cell) if number else tag("th", cell, scope="row") for number, cell in enumerate(row)))
        for row in rows
    ]
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", (tag("th", head, scope="col") for head in heads))),
        tag("tbody", body),
        **attributes,
    )
    return scrolled("div", caption, made)


def scrolled(name: str, label: str, *children: object) -> Html:
    """Return an element that can be scrolled by keyboard where it is too wide, with a label for a screen reader."""
    return tag(name, *children, class_="scroll", tabindex=0, role="region", aria_label=label)


def details(summary: str, *children: object) -> Html:
    """Return what a reader may open."""
    return tag("details", tag("summary", summary), children)
