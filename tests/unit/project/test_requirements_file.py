"""What of requirements files is handed to pip."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.files import Requirements
from harness.project.requirements_file import read


def read_from(folder: Path, **files: str) -> Requirements:
    """Write files, whose names have `__` for a slash and no `.txt`, and read the one named `requirements`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return read(folder / "requirements.txt", folder)


def test_includes_are_followed_and_constraints_are_kept_apart(tmp_path: Path) -> None:
    found = read_from(
        tmp_path,
        requirements="# What runs in production.\n-r requirements/base.txt\n--requirement=requirements/mail.txt\n",
        requirements__base='celery[redis]==5.4.0 ; python_version >= "3.11"  # It.\n-c ../limits.txt\nDjango<6\n',
        requirements__mail="-rmore.txt\n",
        requirements__more="--extra-index-url https://own.example/simple\n",
        limits="kombu==5.4.2\n",
    )
    assert found.lines == (
        'celery[redis]==5.4.0 ; python_version >= "3.11"',
        "Django<6",
        "--extra-index-url https://own.example/simple",
    )
    assert found.constraints == ("kombu==5.4.2",)
    assert found.places == {
        "celery": "requirements/base.txt:1",
        "django": "requirements/base.txt:3",
        "kombu": "limits.txt:1",
    }
    assert not found.exact


def test_hashes_on_continued_lines_stay_with_their_package(tmp_path: Path) -> None:
    text = (
        "celery==5.4.0 \\\n    --hash=sha256:c1 \\\n    --hash=sha256:c0\n    # via -r requirements.in\n"
        "kombu==5.4.2 \\\n --hash=sha256:e1"
    )
    assert read_from(tmp_path, requirements=text).lines == (
        "celery==5.4.0 --hash=sha256:c1 --hash=sha256:c0",
        "kombu==5.4.2 --hash=sha256:e1",
    )


def test_the_own_code_is_left_out_and_said_and_an_own_archive_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "own-1.0-py3-none-any.whl").touch()
    text = "-e .\n.[worker]\n-e ../common\n./vendor/own-1.0-py3-none-any.whl\n--find-links vendor\n"
    found = read_from(tmp_path, requirements=text)
    assert found.lines == ("/app/vendor/own-1.0-py3-none-any.whl", "--find-links /app/vendor")
    assert [line.partition(" ")[0] for line in found.left_out] == [".", ".[worker]", "../common"]


def test_addresses_go_to_pip_as_they_are(tmp_path: Path) -> None:
    text = "own @ git+https://git.example/own@abc\n-e git+https://git.example/other#egg=other\nhttps://files.example/x.whl\n"
    assert read_from(tmp_path, requirements=text).lines == (
        "own @ git+https://git.example/own@abc",
        "git+https://git.example/other#egg=other",
        "https://files.example/x.whl",
    )


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"requirements": "-r base.txt\n"}, r"requirements\.txt asks for .*base\.txt, which is not there"),
        ({"requirements": "-c limits.txt\n"}, r"requirements\.txt asks for .*limits\.txt, which is not there"),
        (
            {"requirements": "-r a.txt\n", "a": "-r b.txt\n", "b": "-r a.txt\n"},
            r"b\.txt includes itself: a\.txt -> b\.txt -> a\.txt",
        ),
        ({"requirements": "celery\ncelery = 5.4\n"}, r"requirements\.txt:2 is no requirement: 'celery = 5\.4'"),
        ({"requirements": "celery\n\n--user\n"}, r"requirements\.txt:3 has the option --user, which is not known here"),
        ({"requirements": "./own.whl\n"}, r"requirements\.txt needs \./own\.whl, which is not there"),
    ],
    ids=["missing include", "missing constraints", "cycle", "no requirement", "unknown option", "missing archive"],
)
def test_what_pip_would_not_take_is_told_with_its_place(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        read_from(tmp_path, **files)


def test_a_file_twice_is_no_cycle(tmp_path: Path) -> None:
    found = read_from(tmp_path, requirements="-r a.txt\n-r b.txt\n", a="-r c.txt\n", b="-r c.txt\n", c="celery\n")
    assert found.lines == ("celery", "celery")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes("celery\n".encode("utf-16"))
    with pytest.raises(ProjectError, match=r"requirements\.txt is no UTF-8 \(byte 0\)"):
        read(tmp_path / "requirements.txt", tmp_path)


def test_an_archive_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.whl").touch()
    (tmp_path / "shop").mkdir()
    with pytest.raises(ProjectError, match=r"own\.whl, which is outside of .*shop: move it into the folder"):
        read_from(tmp_path / "shop", requirements="../own.whl\n")
