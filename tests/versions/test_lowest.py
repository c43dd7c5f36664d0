"""The harness itself beside the oldest Celery and SQLAlchemy that it may be installed with."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOWEST = ("amqp==5.1.1", "celery==5.3.0", "click==8.1.2", "kombu==5.3.0", "sqlalchemy==1.4.41")
"""The lower bounds in pyproject.toml."""
HOST_SIDE = ("tests/unit/test_producer.py", "tests/unit/audit/test_results.py", "tests/unit/records")
"""The tests of what uses these packages outside of containers."""
INSTALL_S, RUN_S = 900, 600


def test_the_lower_bounds_are_what_is_tested() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    for pin in LOWEST:
        name, _, version = pin.partition("==")
        lowest = version.removesuffix(".0") if name in {"celery", "kombu"} else version
        assert f'"{name}>={lowest},<' in declared


def test_the_harness_works_beside_the_oldest_celery_and_sqlalchemy(tmp_path: Path) -> None:
    python = str(tmp_path / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True, timeout=INSTALL_S)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *LOWEST, f"{ROOT}[pytest]"], check=True, timeout=INSTALL_S)
    tests: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *HOST_SIDE]
    done = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stdout
