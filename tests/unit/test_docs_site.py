"""The pages of the site: each Markdown file has a place, and the reference has all that the code has."""

import re
from pathlib import Path

import pytest

import harness
from docs.site import reference
from docs.site.outside import loaded_from_outside, look
from docs.site.prepare import PARTS, ROOT, generated, navigation, on_site, pages, prepare
from harness.commands.cli import cli
from harness.records.event import LINES, MEMBERS, Kind


def test_each_page_has_one_place_in_the_navigation() -> None:
    markdown = {path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))}
    assert len(pages()) == len(set(pages()))
    assert set(pages()) == markdown | {"examples/README.md"} | generated().keys()
    assert list(PARTS) == ["Tutorial", "How to", "Reference", "Explanation", "Contributing"]
    assert {"docs/tutorial", "reference/commands"} <= set(navigation())


@pytest.mark.parametrize(
    ("text", "folder", "shown"),
    [
        ("see [a](../README.md#start)", "docs", "see [a](../index.md#start)"),
        ("see [a](docs/faults.md#chaos)", "", "see [a](docs/faults.md#chaos)"),
        ("see [a](examples)", "", "see [a](examples/README.md)"),
        ("see [`a`](django_project)", "examples", "see `a`"),
        ("see [a](#b), [c](https://example.com)", "docs", "see [a](#b), [c](https://example.com)"),
        ("![a](docs/report.png)", "", "![a](docs/report.png)"),
        # The builder finds this one.
        ("see [a](gone.md)", "docs", "see [a](gone.md)"),
    ],
)
def test_links_lead_to_the_pages_of_the_site(text: str, folder: str, shown: str) -> None:
    assert on_site(text, ROOT / folder) == shown


def test_all_pages_and_pictures_are_written(tmp_path: Path) -> None:
    stale = tmp_path / "site" / "gone.md"
    stale.parent.mkdir()
    stale.touch()
    prepare(tmp_path / "site")
    assert not stale.exists()
    written = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.*")}
    assert {page for page in pages() if page != "README.md"} | {"index.md", "docs/report.png"} <= written
    assert "README.md" not in written


def test_the_commands_have_all_options_and_examples() -> None:
    page = reference.commands()
    for name, command in cli.every().items():
        _, found, rest = page.partition(f"\n## harness {name}\n")
        assert found, name
        section = rest.partition("\n## ")[0]
        for param in command.params:
            words = (
                [*param.opts, *param.secondary_opts]
                if param.param_type_name == "option"
                else [param.human_readable_name]
            )
            missing = [word for word in words if word not in section]
            assert not missing, f"{name} lacks {missing}"
        assert "$ harness" in section


def test_the_pytest_page_has_the_public_fixtures_and_the_marker() -> None:
    assert set(reference.fixtures()) == {"stack", "mailbox", "bound_app", "results"}
    assert all(said for _, said in reference.fixtures().values())
    page = reference.pytest_door()
    assert "`Mailbox`" in page
    assert "own_broker=False" in page


def test_the_python_page_has_all_public_names() -> None:
    page = reference.api()
    for name in harness.__all__:
        assert re.search(rf"\.\. auto(class|function):: harness\.{name}\n", page), name
    assert ".. autofunction:: harness.mail\n" in page
    assert ".. autoclass:: harness.Expect\n" in page


def test_the_journal_page_has_each_kind_with_its_members() -> None:
    page = reference.journal()
    headings = {name for line in re.findall("^## (.+)$", page, re.MULTILINE) for name in line.split(", ")}
    assert headings == {kind.value for kind in Kind}
    for kind, line in LINES.items():
        assert {name for name, _, _ in reference.members(line)} == MEMBERS[kind]
    # A line of a class that is based on another has the members of both.
    assert [name for name, _, _ in reference.members(LINES[Kind.DISCARDED])] == ["reason", "content_type"]
    assert "| `confirmed` | `bool` | True if the broker confirmed it;" in page


def test_plain_text_is_shown_as_it_is() -> None:
    assert reference.escaped("a*b [x] `*` <y>") == r"a\*b \[x\] `*` \<y\>"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<link rel="stylesheet" href="https://fonts.example/a.css">', ["https://fonts.example/a.css"]),
        ('<script src="//cdn.example/a.js"></script>', ["//cdn.example/a.js"]),
        ('<img src="http://pictures.example/a.png">', ["http://pictures.example/a.png"]),
        ("<style>@import 'https://fonts.example/b.css';</style>", ["https://fonts.example/b.css"]),
        ('<div style="background: url(https://pictures.example/b.png)">', ["https://pictures.example/b.png"]),
        ('<img srcset="a.png 1x, https://pictures.example/c.png 2x">', ["https://pictures.example/c.png"]),
        ('<base href="https://elsewhere.example/">', ["https://elsewhere.example/"]),
        ('<script>import("https://cdn.example/m.js")</script>', ["https://cdn.example/m.js"]),
        ('<script>const docs = "https://docs.example/"; open(docs)</script>', []),
        ('<a href="https://locust.io">Locust</a><img src="a.png"><link rel="canonical" href="https://a.example/">', []),
    ],
)
def test_what_a_page_would_load_from_elsewhere_is_found(text: str, found: list[str]) -> None:
    assert loaded_from_outside(text) == found


def test_a_whole_site_is_looked_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no page"):
        list(look(tmp_path))
    (tmp_path / "a.html").write_text("<p>plain</p>")
    (tmp_path / "a.css").write_text("a { color: red } b { background: url(//pictures.example/c.png) }")
    (tmp_path / "a.js").write_text('fetch("https://figures.example/d.json")')
    assert list(look(tmp_path)) == [
        "a.css loads //pictures.example/c.png",
        "a.js loads https://figures.example/d.json",
    ]
