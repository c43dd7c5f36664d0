"""What is written for people is text, and where it cannot be written nothing else fails."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from harness.console import WIDE, Console, Words, columns_of

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b[2J[/red]\x1b]0;owned\x07\r"
SHOWN = r"\x1b[2J[/red]\x1b]0;owned\x07\r"


def written(console: RichConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def table(text: str | Text) -> Table:
    table = Table()
    table.add_column("what")
    table.add_row(text)
    return table


@pytest.mark.parametrize("made", [str, table], ids=["string", "table"])
def test_no_text_is_markup_or_a_sequence_that_a_terminal_obeys(made: Callable[[str], str | Table]) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(made(HOSTILE))
    assert SHOWN in written(console)
    assert not set("\x1b\x07\r") & set(written(console))


@pytest.mark.parametrize("made", [Text, lambda text: table(Text(text))], ids=["text", "table"])
def test_text_that_nobody_has_looked_at_is_not_obeyed_either(made: Callable[[str], Text | Table]) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(made(HOSTILE))
    assert r"\x1b[2J[/red]" in written(console)
    assert not set("\x1b\x07\r") & set(written(console))


def test_without_it_a_terminal_would_obey() -> None:
    """The control."""
    console = RichConsole(file=io.StringIO(), width=100)
    console.print(HOSTILE, markup=False)
    assert "\x1b[2J" in written(console)


def test_what_is_said_beside_a_progress_bar_is_text_as_well() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Progress(console=console) as bars:
        bars.console.print(HOSTILE)
    assert r"\x1b[2J[/red]" in written(console)


NAME = "test_a_file_that_is_imported_twice_changes_nothing[scenarios.bulk_data-sqlite:///orders.db]"


@pytest.mark.parametrize(
    "text", [NAME, f"see {NAME}: it is not met", f"  {NAME} {NAME}\n\nand more", "", "a " * 99, "ö漢" * 40]
)
@pytest.mark.parametrize("width", [12, 17, 30, 60, 80, 120])
def test_words_are_broken_at_their_ends_or_where_a_reader_would_break_them(text: str, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    lines = [line.plain for line in Words(text).wrap(console, width)]
    assert max((cell_len(line) for line in lines), default=0) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())
    whole = re.compile(r"(?:.*[_./:\[\]-])?$")
    for line in map(str.strip, lines):
        assert whole.match(line) or re.search(rf"{re.escape(line)}(\s|$)", text) or "漢" in text, line


def test_a_piece_that_is_wider_than_a_line_is_broken_anywhere() -> None:
    lines = Words("ab_" + "x" * 25 + "_c").wrap(Console(file=io.StringIO(), width=10), 10)
    assert [line.plain for line in lines] == ["ab_xxxxxxx", "x" * 10, "x" * 8 + "_c"]


def test_the_style_of_words_goes_with_their_pieces() -> None:
    lines = Words.assemble("ab_", ("cd_ef", "red")).wrap(Console(file=io.StringIO(), width=6), 6)
    assert [(line.plain, [(span.start, span.end) for span in line.spans]) for line in lines] == [
        ("ab_cd_", [(3, 6)]),
        ("ef", [(0, 2)]),
    ]


def test_a_log_is_wide_unless_columns_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert (Console(file=io.StringIO()).width, columns_of(io.StringIO())) == (WIDE, WIDE)
    assert Console(file=io.StringIO(), width=50).width == 50
    monkeypatch.setenv("COLUMNS", "60")
    assert (Console(file=io.StringIO()).width, columns_of(io.StringIO())) == (60, 60)


def test_its_own_colours_are_still_there() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=100)
    console.print(Text("pass", "green"))
    assert written(console) == "\x1b[32mpass\x1b[0m\n"


WRITES = """
import sys
from harness.console import Outputs
outputs = Outputs()
outputs.replace()
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        stream.write("x" * 100_000 + "\\n")
        stream.flush()
        print("name\\udcff", file=stream)
lost = outputs.flush()
open("said", "w").write(repr(lost))
sys.exit(7)
"""


def ended(place: Path, redirected: str) -> tuple[int, str]:
    """How a program ends that writes a lot, under a shell's redirection; and what it said of that."""
    command = f'"$0" -c "$1" {redirected}; exit "${{PIPESTATUS[0]:-$?}}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, WRITES],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, (place / "said").read_text()


@pytest.mark.parametrize("redirected", ["| true", "2>&1 | true", ">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "<&-", ""])
def test_whoever_does_not_read_changes_no_exit_code(tmp_path: Path, redirected: str) -> None:
    assert ended(tmp_path, redirected) == (7, "None")


def test_an_output_that_is_lost_is_told_and_changes_no_exit_code(tmp_path: Path) -> None:
    code, said = ended(tmp_path, ">/dev/full")
    assert code == 7
    assert "the output could not be written: No space left on device" in said


def test_where_standard_output_was_closed_no_file_gets_what_is_written_to_it(tmp_path: Path) -> None:
    opens = "f = open('mine', 'w'); import os; os.write(1, b'not yours'); f.close(); "
    program = WRITES.replace("for stream", opens + "\nfor stream", 1)
    command = '"$0" -c "$1" >&-'
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", command, sys.executable, program], cwd=tmp_path, env=env, timeout=60, check=False)
    assert (tmp_path / "mine").read_text() == ""
