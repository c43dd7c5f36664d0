"""Write the pages of the site into a folder: the Markdown files of the repository, and the generated reference.

`python -m docs.site.prepare FOLDER`. The files stay as a code host shows them. Only what a site has to have in another
way is changed: README.md is its first page, and a link to a folder without a page is no link.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from docs.site import reference

ROOT = Path(__file__).resolve().parents[2]
FIRST = "README.md"
PARTS: Mapping[str, tuple[str, ...]] = {
    "Tutorial": ("docs/tutorial.md",),
    "How to": (
        "docs/init.md",
        "docs/own-app.md",
        "docs/django.md",
        "docs/own-image.md",
        "docs/pytest-celery.md",
        "docs/scenarios.md",
        "docs/faults.md",
        "docs/survive.md",
        "docs/rehearse.md",
        "docs/load.md",
        "docs/timelapse.md",
        "docs/web.md",
        "docs/up.md",
        "docs/report.md",
        "docs/traces.md",
        "docs/ci.md",
        "docs/air-gapped.md",
        "docs/podman.md",
        "docs/kubernetes.md",
        "examples/README.md",
    ),
    "Reference": (
        "docs/settings.md",
        "docs/shell.md",
        "reference/commands.md",
        "reference/pytest.md",
        "reference/api.md",
        "reference/journal.md",
        "docs/versions.md",
        "CHANGELOG.md",
    ),
    "Explanation": ("docs/accounting.md", "docs/reasons.md", "docs/guarantees.md", "docs/catalogue.md"),
    "Contributing": ("CONTRIBUTING.md", "docs/architecture.md"),
}
"""The parts of the navigation, and their pages in order. Those in `reference/` are generated."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def pages() -> tuple[str, ...]:
    """Return the paths of all pages, the first page included."""
    return (FIRST, *(page for part in PARTS.values() for page in part))


def generated() -> Mapping[str, str]:
    """Return the text of each generated page by its path."""
    return {
        "reference/commands.md": reference.commands(),
        "reference/pytest.md": reference.pytest_door(),
        "reference/api.md": reference.api(),
        "reference/journal.md": reference.journal(),
    }


def on_site(text: str, folder: Path) -> str:
    """Return a page's text with its links as the site has them.

    Args:
        text: the page's Markdown.
        folder: where the page lies in the repository.
    """

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or "://" in path:
            return match[0]
        found = (folder / path).resolve()
        if found.is_dir() and (found / FIRST).relative_to(ROOT).as_posix() in pages():
            return f"[{words}]({path.rstrip('/')}/{FIRST})"
        if found.is_dir():
            return words
        if found == ROOT / FIRST:
            return f"[{words}]({path.removesuffix(FIRST)}index.md{hash_sign}{anchor})"
        return match[0]

    return _LINK.sub(link, text)


def navigation() -> Iterator[str]:
    """Yield the lines that give the first page the navigation of the site, and show nothing on it."""
    for caption, part in PARTS.items():
        yield from ("", "```{toctree}", ":hidden:", f":caption: {caption}", "")
        yield from (page.removesuffix(".md") for page in part)
        yield "```"


def prepare(target: Path) -> None:
    """Write all pages and their pictures into a folder, which is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    for page in pages():
        path = target / ("index.md" if page == FIRST else page)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not page.startswith("reference/"):
            path.write_text(on_site((ROOT / page).read_text(), (ROOT / page).parent))
    for page, text in generated().items():
        (target / page).write_text(text)
    with (target / "index.md").open("a") as first:
        first.write("\n".join((*navigation(), "")))
    for picture in (ROOT / "docs").glob("*.png"):
        shutil.copy(picture, target / "docs")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
