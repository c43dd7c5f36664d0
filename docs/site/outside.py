"""Find what a browser would load from elsewhere when it shows a page of the site: there must be nothing.

`python -m docs.site.outside FOLDER` looks at each page, style sheet and script, and exits with 1 if it finds any.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

_LOADED = {
    "audio": "src",
    "base": "href",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}
"""The attribute by which an element names what the browser loads for it, or for all others as `base` does. A link to
follow, `a`, loads nothing."""
_IN_SCRIPT = re.compile(r"(?:(?<!@)\bimport|\bfetch|\.src\s*=|\bfrom)\s*\(?\s*[\"'`]((?:https?:)?//[^\"'`\s]+)")
"""Where a script names what the browser loads."""
_IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s;]+)")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        addresses = [values.get(_LOADED.get(tag, "")) or ""]
        # One picture in several sizes: addresses with their widths, with commas between.
        addresses += [one.split()[0] for one in (values.get("srcset") or "").split(",") if one.strip()]
        # The canonical address of a page is told, and not loaded.
        if values.get("rel") != "canonical":
            self.found += [one for one in addresses if re.match(r"(https?:)?//", one)]


def loaded_from_outside(text: str, *, kind: str = ".html") -> list[str]:
    """Return the addresses that a page makes the browser load, or a style sheet (`.css`), or a script (`.js`)."""
    if kind == ".css":
        return _IN_STYLE.findall(text)
    if kind == ".js":
        return _IN_SCRIPT.findall(text)
    page = _Page()
    page.feed(text)
    return page.found + _IN_STYLE.findall(text) + _IN_SCRIPT.findall(text)


def look(site: Path) -> Iterator[str]:
    """Yield each such address of a site, after the file that has it. Raises ValueError if there is no page."""
    pages = sorted(site.rglob("*.html"))
    if not pages:
        raise ValueError(f"{site} has no page: was the site built?")
    for path in (*pages, *sorted(site.rglob("*.css")), *sorted(site.rglob("*.js"))):
        for address in loaded_from_outside(path.read_text(), kind=path.suffix):
            yield f"{path.relative_to(site)} loads {address}"


if __name__ == "__main__":
    found = list(look(Path(sys.argv[1])))
    sys.stderr.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)
