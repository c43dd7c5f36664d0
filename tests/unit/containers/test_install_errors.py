"""What is said where pip failed. The logs are pip's own, shortened."""

import pytest

from harness.containers.install_errors import explain

MISSING = """
ERROR: Could not find a version that satisfies the requirement shop-tools==3 (from versions: none)
ERROR: No matching distribution found for shop-tools==3
"""
TOO_NEW = """
ERROR: Could not find a version that satisfies the requirement celery==99 (from versions: 5.3.6, 5.4.0, 5.5.0)
ERROR: No matching distribution found for celery==99
"""
OTHER_PYTHONS = """
ERROR: Ignored the following versions that require a different python version: 1.21.2 Requires-Python >=3.7,<3.11
ERROR: Could not find a version that satisfies the requirement numpy==1.21.2 (from versions: none)
ERROR: No matching distribution found for numpy==1.21.2
"""
DIFFERENT_PYTHON = """
ERROR: Package 'old-thing' requires a different Python: 3.13.5 not in '<3.12,>=3.8'
"""
NO_COMPILER = """
Collecting psycopg2==2.9.10 (from -r /harness-build/requirements.txt (line 2))
  Downloading psycopg2-2.9.10.tar.gz (385 kB)
  error: subprocess-exited-with-error
  x Getting requirements to build wheel did not run successfully.
      Error: pg_config executable not found.
error: subprocess-exited-with-error
"""
NO_WHEEL = """
  Downloading uwsgi-2.0.28.tar.gz (816 kB)
  Building wheel for uwsgi (pyproject.toml): finished with status 'error'
  error: command 'gcc' failed: No such file or directory
  ERROR: Failed building wheel for uwsgi
ERROR: Failed to build installable wheels for some pyproject.toml based projects (uwsgi)
"""
UNCLEAR_BUILD = """
  Using cached strange-1.0.tar.gz (5 kB)
  AttributeError: module 'pkgutil' has no attribute 'ImpImporter'
ERROR: Failed to build 'strange' when getting requirements to build wheel
"""
CONFLICT = """
ERROR: Cannot install celery==5.4 and kombu==5.2 because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested kombu==5.2
    celery 5.4.0 depends on kombu<6.0 and >=5.3.4

To fix this you could try to:
"""
HASHES = """
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.
"""
UNREACHABLE = """
WARNING: Retrying after connection broken by 'NewConnectionError(...: Temporary failure in name resolution)': /simple/
ERROR: Could not find a version that satisfies the requirement celery (from versions: none)
ERROR: No matching distribution found for celery
"""
NO_GIT = "ERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            MISSING,
            "shop-tools==3 in base.txt asks for shop-tools==3, which cannot be had for Python 3.13: no version of",
        ),
        (
            TOO_NEW,
            "celery==99, which cannot be had for Python 3.13: the index has 5.3.6, 5.4.0, 5.5.0 for this Python.",
        ),
        (OTHER_PYTHONS, "its versions are for other Pythons (1.21.2 Requires-Python >=3.7,<3.11)."),
        (DIFFERENT_PYTHON, "asks for old-thing, which needs Python <3.12,>=3.8, and the image has 3.13: set another"),
        (
            NO_COMPILER,
            'not be built from its source: set `apt = ["libpq-dev", "build-essential", "python3-dev"]` in the settings',
        ),
        (
            NO_WHEEL,
            'uwsgi 2.0.28, which has no wheel for Python 3.13 and could not be built from its source: set `apt = ["b',
        ),
        (UNCLEAR_BUILD, "asks for strange 1.0, which has no wheel for Python 3.13 and could not be built from its"),
        (
            CONFLICT,
            "contradict each other for Python 3.13: The user requested kombu==5.2; celery 5.4.0 depends on kombu",
        ),
        (HASHES, "The files of the index are not those whose hashes are in  in base.txt"),
        (UNREACHABLE, "could not be reached from a container (Temporary failure in name resolution)"),
        (NO_GIT, 'set `apt = ["git"]`'),
        ("ERROR: something else\n", "something else"),
        ("nothing\n", "pip said no reason."),
    ],
)
def test_the_reason_names_package_version_python_and_place(log: str, said: str) -> None:
    assert said in explain(log, where=lambda package: f"{package} in base.txt", python="3.13")


def test_a_conflict_is_asked_for_where_a_package_of_it_is() -> None:
    assert explain(CONFLICT, where=lambda package: f"at {package}", python="3.13").endswith("(at kombu==5.2).")
