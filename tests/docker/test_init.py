"""`harness init` as a stranger meets it: a project that has never heard of the harness, and the test that it gets."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_test_that_a_plain_app_gets_is_green_without_an_edit(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "shop", tmp_path / "shop", ignore=shutil.ignore_patterns("welcomes.py"))
    (tmp_path / "shop" / "checks.py").write_text(
        "from shop.app import app\n\n\n@app.task(name='shop.ping')\ndef ping():\n    return 'pong'\n"
    )
    app = tmp_path / "shop" / "app.py"
    app.write_text(f"{app.read_text()}\nimport shop.checks\n")
    done = run("harness", "init", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "knows 2 tasks:\n  shop.ping\n  shop.welcome\n" in done.stdout
    *_, last = done.stdout.splitlines()
    assert last == "next:  pytest tests/test_harness_smoke.py"
    tested = run(*last.partition("next:  ")[2].split(), "-p", "no:cacheprovider", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    assert "1 ok" in tested.stdout.partition("celery harness")[2], "the harmless task was sent, and accounted for"
