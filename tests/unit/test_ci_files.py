"""The action for GitHub and the template for GitLab are what these systems take, and pass the exit code on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.report.ci_annotations import GITLAB_FILE

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
TEMPLATE = ROOT / "ci" / "celery-harness.gitlab-ci.yml"
SCHEMAS = {ACTION: "vendor.github-actions", WORKFLOW: "vendor.github-workflows", TEMPLATE: "vendor.gitlab-ci"}


def checked(text: str, schema: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against the schema of a CI system, which is in the wheel of the checker."""
    path = folder / "checked.yml"
    # A job whose name begins with a dot is a part for other jobs, and the schema takes anything for it.
    path.write_text(text.replace("\n.celery-harness:", "\ncelery-harness:"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    if schema == "vendor.gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False, timeout=60)


def loaded(path: Path) -> dict[str, Any]:
    value = yaml.safe_load(path.read_text())
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_each_file_is_what_its_system_takes(tmp_path: Path, path: Path) -> None:
    done = checked(path.read_text(), SCHEMAS[path], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        (ACTION, "using: composite", "using: composit"),
        (ACTION, "    description: The folder of your project.\n", "    descripton: 3\n"),
        (WORKFLOW, "runs-on:", "run-on:"),
        (TEMPLATE, "when: always", "when: allways"),
    ],
)
def test_a_file_that_its_system_refuses_is_noticed(tmp_path: Path, path: Path, right: str, wrong: str) -> None:
    text = path.read_text()
    assert right in text
    assert checked(text.replace(right, wrong), SCHEMAS[path], tmp_path).returncode != 0


def audited(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Ask an auditor of workflows what could be injected into them."""
    program = str(Path(sys.executable).with_name("zizmor"))
    options = ("--offline", "--no-progress", "--config", str(ROOT / ".github" / "zizmor.yml"))
    command = [program, *options, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_nothing_in_them_lets_others_run_code() -> None:
    done = audited(ACTION, WORKFLOW)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_input_in_a_script_would_be_noticed(tmp_path: Path) -> None:
    action = tmp_path / "action.yml"
    action.write_text(ACTION.read_text().replace('"$HARNESS_ACTION_COMMAND"', '"${{ inputs.command }}"'))
    done = audited(action)
    assert (done.returncode == 0, "template-injection" in done.stdout) == (False, True)


def script(name: str) -> str:
    """Return the script of a step of the action."""
    (found,) = [step["run"] for step in loaded(ACTION)["runs"]["steps"] if step.get("name") == name]
    assert isinstance(found, str)
    return found


def run(text: str, folder: Path, **environment: str) -> int:
    """Run a script as GitHub does with `shell: bash`, and return its exit code."""
    file = folder / "step.sh"
    file.write_text(text)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(file)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=False, timeout=60).returncode


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("false | true", 1), ("false; true", 1)])
def test_the_action_ends_with_the_exit_code_of_the_command(tmp_path: Path, command: str, code: int) -> None:
    assert run(script("Run"), tmp_path, HARNESS_ACTION_COMMAND=command) == code
    assert (tmp_path / "reports").is_dir()


@pytest.mark.parametrize(("install", "code"), [("", 0), ("echo two", 0), ("exit 4", 4)])
def test_the_action_installs_the_harness_of_its_own_checkout_with_the_extras(
    tmp_path: Path, install: str, code: int
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$SAID"\n')
    (programs / "python").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SAID": str(tmp_path / "said"),
        "GITHUB_ACTION_PATH": "/a/b c",
        "HARNESS_ACTION_EXTRAS": "pytest,load",
        "HARNESS_ACTION_INSTALL": install,
    }
    assert run(script("Install the harness"), tmp_path, **environment) == code
    assert (tmp_path / "said").read_text().splitlines() == ["-m", "pip", "install", "/a/b c[pytest,load]"]


def test_both_keep_the_run_folders_whatever_happened() -> None:
    keeps = loaded(ACTION)["runs"]["steps"][-1]
    assert keeps["if"] == "always()"
    assert ".harness/runs" in keeps["with"]["path"]
    assert keeps["with"]["include-hidden-files"] is True
    kept = loaded(TEMPLATE)[".celery-harness"]["artifacts"]
    assert (kept["when"], kept["reports"]["junit"]) == ("always", ["reports/*.xml", ".harness/runs/2*/junit.xml"])
    assert kept["reports"]["annotations"] == str(GITLAB_FILE)
    assert ".harness/runs" in kept["paths"]


def test_the_template_ends_with_the_exit_code_of_the_command(tmp_path: Path) -> None:
    text = "\n".join(loaded(TEMPLATE)[".celery-harness"]["script"])
    assert run(text, tmp_path, HARNESS_COMMAND="exit 3") == 3
    assert run(text, tmp_path, HARNESS_COMMAND="true") == 0
