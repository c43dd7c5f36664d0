"""Files with environment variables: each form of a line, and what is refused."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.project.env_file import read


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A=", ""),
        ("  export A = two words  ", "two words"),
        ("A=one # a comment", "one"),
        ("A=# a comment", ""),
        ("A=a#b", "a#b"),
        ("A='one # two' # three", "one # two"),
        ("A='it is \\n $HOME'", "it is \\n $HOME"),
        ('A="one\\ntwo \\"x\\" \\\\ $HOME"', 'one\ntwo "x" \\ $HOME'),
        ('A="" # empty', ""),
        ("A=postgres://u:p@h/d?x=1", "postgres://u:p@h/d?x=1"),
        ("A=1\r", "1"),
        ("A=1\nA=2", "2"),
        ("# A=0\n\n   # more\nA=1", "1"),
        ("\ufeffA=Zoë", "Zoë"),
    ],
)
def test_a_line_is_a_variable_with_its_value(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_bytes(line.encode())
    assert read(tmp_path / ".env") == {"A": value}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A=1\nsecret\n", r"\.env, line 2 is no variable: write NAME=value"),
        (b"1A=secret", r"\.env, line 1 is no variable"),
        (b"A=1\n\nB='secret\n'", r"\.env, line 3: the quotes around the value of B do not end with the line"),
        (b'A="secret"x', r"\.env, line 1: the quotes around the value of A"),
        (b"A=sec\0ret", r"\.env, line 1 is no variable"),
        (b"A=1\nB=\xff", r"\.env is not UTF-8, in line 2"),
        (None, r"\.env cannot be read: No such file"),
    ],
)
def test_what_is_no_variable_is_told_with_its_line_and_without_its_value(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / ".env").write_bytes(content)
    with pytest.raises(UsageError, match=said) as wrong:
        read(tmp_path / ".env")
    assert "secret" not in str(wrong.value)
