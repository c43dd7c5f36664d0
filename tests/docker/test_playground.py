"""`harness up`, `status` and `down`, as a person uses them: one after another in a folder of their own."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from celery import Celery

from harness.audit.ledger import Ledger
from harness.wait import wait_until

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
StartedBy = Callable[[int], list[str]]
ORDER = {
    "customer": {"name": "Zoë", "email": "zoe@example.com"},
    "currency": "EUR",
    "lines": [{"sku": "TEA-01", "title": "Sencha tea", "quantity": 2, "unit_price_cents": 1250}],
}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a playground; take the playground down at the end."""
    yield tmp_path
    assert harness(tmp_path, "down").returncode == 0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}


def harness(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def state(place: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((place / ".harness" / "up.json").read_text())
    return said


def is_up(place: Path) -> bool:
    return (place / ".harness" / "up.json").exists() and bool(state(place)["web"])


def owner(place: Path) -> int:
    return int(state(place)["owner"].split("/")[2])


def test_a_detached_stack_takes_orders_until_it_is_taken_down_and_accounted_for(
    place: Path, started_by: StartedBy
) -> None:
    nothing = harness(place, "status")
    assert (nothing.returncode, nothing.stdout) == (3, "nothing is up.\n")
    came = harness(place, "up", "--detach", "--app-dir", str(ROOT))
    assert came.returncode == 0, came.stdout + came.stderr
    there, pid = state(place), owner(place)
    for shown in (
        there["management"],
        there["web"],
        there["mails"],
        there["results"],
        "password guest",
        "up.administrator.json",
        "curl -i ",
    ):
        assert shown in came.stdout
    again = harness(place, "up", "--detach", "--app-dir", str(ROOT))
    assert (again.returncode, "is up already" in again.stderr) == (2, True)

    with requests.Session() as http:
        http.trust_env = False
        overview = http.get(f"{there['management']}/api/overview", auth=("guest", "guest"), timeout=10)
        assert overview.ok
        assert http.get(f"{there['management']}/api/overview", auth=("guest", "wrong"), timeout=10).status_code == 401
        look_at_rights(http, there["management"], place / ".harness" / "up.administrator.json")
        assert http.post(f"{there['web']}/emails", json=ORDER, timeout=10).status_code == 202
    wait_until(lambda: any(Path(there["mails"]).glob("*.eml")), what="the receipt arrives", timeout_s=30)
    press_the_buttons(there["page"])

    shown = harness(place, "status")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for node in ("broker", "worker-1", "worker-2", "beat-1", "mailbox", "web"):
        assert f"{node}: running" in shown.stdout

    gone = harness(place, "down")
    assert gone.returncode == 0, gone.stderr
    assert "verdict" in gone.stdout
    assert json.loads((Path(there["folder"]) / "audit.json").read_text())["fates"]["ok"] >= 1
    assert started_by(pid) == []
    assert not (place / ".harness" / "up.administrator.json").exists()
    assert harness(place, "status").returncode == 3
    with pytest.raises(requests.ConnectionError):
        requests.get(there["page"], timeout=10, proxies={"http": ""})


def press_the_buttons(page: str) -> None:
    """Send, hold and let go, kill and start with the page of the stack, as its script does."""
    with requests.Session() as http:
        http.trust_env = False
        text = http.get(page, timeout=10).text
        (token,) = re.findall(r'"token":"([^"]+)"', text)

        def order(**what: object) -> str:
            headers = {"Origin": page, "X-Harness-Token": token}
            answer = http.post(f"{page}/order", json=what, headers=headers, timeout=60)
            assert answer.ok, answer.text
            return answer.text

        def state() -> dict[str, Any]:
            said: dict[str, Any] = http.get(f"{page}/state", timeout=20).json()
            return said

        assert http.post(f"{page}/order", json={"do": "kill", "node": "worker-1"}, timeout=10).status_code == 403
        order(do="hold", moment="started")
        assert "answered 202" in order(do="first")
        wait_until(lambda: state()["holds"][0]["held"], what="the task is held", timeout_s=30)
        held = state()
        assert held["running"] >= 1
        order(do="let-go", hold=held["holds"][0]["number"])
        wait_until(lambda: state()["tasks"][0]["state"] == "SUCCESS", what="it goes on", timeout_s=30)
        order(do="kill", node="worker-2")
        wait_until(lambda: worker_2(state()) == "exited", what="it is seen dead", timeout_s=20)
        order(do="start", node="worker-2")
        wait_until(lambda: worker_2(state()) == "running", what="it is back", timeout_s=20)
        assert "Celery Harness" in http.get(f"{page}/report", timeout=60).text


def worker_2(state: dict[str, Any]) -> str:
    (said,) = [str(node["state"]) for node in state["nodes"] if node["name"] == "worker-2"]
    return said


def look_at_rights(http: requests.Session, management: str, secret: Path) -> None:
    """Check that the public login opens one vhost and nothing else, and that the file's login may do everything."""
    guest, said = ("guest", "guest"), json.loads(secret.read_text())
    administrator = (said["user"], said["password"])
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600

    def status(method: str, path: str, auth: tuple[str, str], body: dict[str, str] | None = None) -> int:
        # A server may refuse a request before its body is there, and then close the connection.
        alone = {"Connection": "close"}
        url = f"{management}/api/{path}"
        return http.request(method, url, auth=auth, json=body, headers=alone, timeout=10).status_code

    me = http.get(f"{management}/api/whoami", auth=guest, timeout=10).json()
    assert me["tags"] == ["management"]
    (vhost,) = http.get(f"{management}/api/vhosts", auth=guest, timeout=10).json()
    assert status("GET", f"queues/{vhost['name']}", guest) == 200
    other = {"password": "x", "tags": "administrator"}
    refused = {401, 403}
    for method, path, body in (
        ("GET", "users", None),
        ("GET", "queues/%2F", None),
        ("GET", "definitions", None),
        ("PUT", "users/another", other),
        ("PUT", "users/guest", other),
        ("PUT", "vhosts/another", {}),
        ("PUT", "permissions/%2F/guest", {"configure": ".*", "write": ".*", "read": ".*"}),
    ):
        assert status(method, path, guest, body) in refused, (method, path)
    # The control: it is the rights that were missing.
    assert status("GET", "users", administrator) == 200
    assert status("PUT", "users/another", administrator, other) == 201


def test_a_node_that_dies_is_told_and_ctrl_c_takes_everything_down(place: Path, client: docker.DockerClient) -> None:
    arguments = command("up", "--logs", "--workers", "1", "--app-dir", str(ROOT))
    output = place / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(arguments, cwd=place, env=environment(), stdout=file, stderr=subprocess.STDOUT)
    wait_until(lambda: is_up(place), what="the stack is up", timeout_s=120)
    label = f"celery-harness.owner={state(place)['owner']}"
    (worker,) = client.containers.list(filters={"label": [label, "celery-harness.node=worker-1"]})
    worker.kill()
    wait_until(lambda: harness(place, "status").returncode == 1, what="status tells of it", timeout_s=20)
    wait_until(lambda: "worker-1 is down. Its last words: " in output.read_text(), what="it is told", timeout_s=20)
    process.send_signal(signal.SIGINT)
    code, said = process.wait(timeout=90), output.read_text()
    assert code == 0, said
    assert "verdict" in said
    assert "     web | " in said
    assert "Traceback" not in said
    assert client.containers.list(all=True, filters={"label": label}) == []


def test_a_stack_whose_owner_was_killed_is_not_up_and_down_removes_what_it_left(
    place: Path, started_by: StartedBy
) -> None:
    assert harness(place, "up", "-d", "--workers", "0", "--app-dir", str(ROOT)).returncode == 0
    pid = owner(place)
    os.kill(pid, signal.SIGKILL)
    assert started_by(pid) != []
    wait_until(lambda: harness(place, "status").returncode == 3, what="nothing is up", timeout_s=20)
    assert (place / ".harness" / "up.administrator.json").exists()
    assert harness(place, "down").returncode == 0
    assert started_by(pid) == []
    assert not (place / ".harness" / "up.administrator.json").exists()
    assert harness(place, "status").stdout == "nothing is up.\n"


def test_a_stack_can_be_taken_down_while_it_comes_up(place: Path, started_by: StartedBy) -> None:
    # Its workers never come up, so that it is being brought up for as long as this takes.
    (place / "never.py").write_text("import time\n\ntime.sleep(3600)\n")
    arguments = command("up", "never", "--detach", "--app-dir", str(place))
    process = subprocess.Popen(arguments, cwd=place, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_until((place / ".harness" / "up.json").exists, what="it has begun", timeout_s=60)
    pid = owner(place)
    wait_until(lambda: started_by(pid), what="something was started", timeout_s=60)
    assert "is still being brought up" in harness(place, "status").stdout
    again = harness(place, "up", "never", "--app-dir", str(place))
    assert (again.returncode, "is being brought up" in again.stderr) == (2, True)
    assert "was still being brought up" in harness(place, "down").stdout
    assert started_by(pid) == []
    _, said = process.communicate(timeout=30)
    assert (process.returncode, "did not come up" in said) == (2, True), said


def test_whoever_gives_up_waiting_for_a_detached_stack_leaves_nothing(place: Path, started_by: StartedBy) -> None:
    arguments = command("up", "--detach", "--app-dir", str(ROOT))
    process = subprocess.Popen(arguments, cwd=place, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_until((place / ".harness" / "up.json").exists, what="it has begun", timeout_s=60)
    pid = owner(place)
    wait_until(lambda: started_by(pid), what="something was started", timeout_s=60)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, started_by(pid)) == (130, []), said


def test_an_app_that_does_not_import_does_not_come_up(place: Path) -> None:
    ended = harness(place, "up", "-d", "no.such.app", "--app-dir", str(ROOT))
    assert ended.returncode == 2
    assert "No module named 'no'" in ended.stderr
    assert not (place / ".harness" / "up.json").exists()


def test_what_is_sent_from_the_shell_and_by_another_process_is_told_apart(place: Path) -> None:
    came = harness(place, "up", "routed", "-d", "--workers", "1", "--app-dir", str(ROOT / "tests" / "docker" / "apps"))
    assert came.returncode == 0, came.stdout + came.stderr
    there = state(place)
    assert there["amqp"].startswith("amqp://guest:guest@127.0.0.1:")
    assert there["amqp"] in came.stdout

    answered = harness(place, "send", "routed.add", "1", "--kwargs", '{"y": 2}', "--count", "2", "--wait")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.count("SUCCESS  3") == 2
    failed = harness(place, "send", "routed.add", "1", "null", "--wait")
    assert (failed.returncode, "FAILURE  TypeError: unsupported operand" in failed.stdout) == (1, True)
    # Nobody knows of what an app of one's own sends there.
    with Celery("own", broker=there["amqp"], set_as_current=False) as own:
        own.send_task("routed.add", [1, 1], queue="shop", ignore_result=True)
    ledger = Ledger(Path(there["folder"]) / "journal")

    def has_run() -> bool:
        ledger.update()
        return len(ledger.started()) == 4

    wait_until(has_run, what="it runs", timeout_s=20)

    assert harness(place, "down").returncode == 0
    audit = json.loads((Path(there["folder"]) / "audit.json").read_text())
    assert {fate: count for fate, count in audit["fates"].items() if count} == {"ok": 2, "failed": 1}
    codes = {finding["code"]: finding["count"] for finding in audit["findings"]}
    assert codes["unexpected-executions"] == 1
    assert "journal-incomplete" not in codes
