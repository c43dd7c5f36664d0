"""What the nodes of a stack that run the app are told: how each reaches the broker."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from harness.stack.app_nodes import AppNodes
from harness.stack.app_place import AppPlace
from harness.stack.stack_spec import StackSpec

if TYPE_CHECKING:
    from harness.containers.tcp_link import TcpLink

BROKER_URL = "amqp://broker:5672/vhost"


class FakeLink:
    """Gives each client a URL that shows its name."""

    def url_inside(self, client: str, broker_url: str) -> str:
        return broker_url.replace("broker", f"link-for-{client}")


def nodes(tmp_path: Path, link: FakeLink | None) -> AppNodes:
    spec = StackSpec(app="shop.app", app_folder=tmp_path, env={"AMQP": "{broker.url}?heartbeat=2", "KEY": "value"})
    return AppNodes(
        spec=spec,
        place=AppPlace.of(spec, tmp_path, print),
        image="image",
        run_folder=tmp_path,
        network="network",
        broker_url=BROKER_URL,
        results_url="db+sqlite:///results",
        mailbox=None,
        leases={},
        link=cast("TcpLink | None", link),
    )


@pytest.mark.parametrize("name", ["worker-1", "beat-1"])
def test_behind_a_link_each_node_has_a_way_of_its_own_in_every_variable(tmp_path: Path, name: str) -> None:
    env = nodes(tmp_path, FakeLink()).of(name).spec(name, ()).env
    url = f"amqp://link-for-{name}:5672/vhost"
    assert {env[key] for key in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")} == {url}
    assert (env["AMQP"], env["KEY"]) == (f"{url}?heartbeat=2", "value")


def test_without_a_link_all_nodes_share_what_they_are_told(tmp_path: Path) -> None:
    made = nodes(tmp_path, None)
    assert made.of("worker-1") is made.of("worker-2") is made.shared
    assert made.shared.broker_url == BROKER_URL
    assert made.shared.env["AMQP"] == f"{BROKER_URL}?heartbeat=2"


def test_what_runs_once_before_the_workers_needs_no_link(tmp_path: Path) -> None:
    assert nodes(tmp_path, FakeLink()).shared.broker_url == BROKER_URL
