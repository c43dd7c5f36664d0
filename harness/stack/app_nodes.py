"""The settings of each node of a stack that runs the app."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.containers.app_node import APP_DATABASE_URL_INSIDE, AppNode, overriding
from harness.containers.mailbox import SMTP_PORT, Mailbox
from harness.containers.ownership import RUN_LABEL
from harness.containers.service import Lease
from harness.containers.tcp_link import TcpLink
from harness.project.needs import Service
from harness.project.templates import BROKER_URL, DATABASE_URL, MAILBOX_HOST, MAILBOX_PORT, rendered
from harness.stack.app_place import AppPlace
from harness.stack.stack_spec import StackSpec


@dataclass(frozen=True, kw_only=True)
class AppNodes:
    """The parts that the nodes share: the app's image and environment, and its folder as they see it."""

    spec: StackSpec
    place: AppPlace
    image: str
    run_folder: Path
    network: str
    broker_url: str
    """The broker's URL inside the network."""
    results_url: str
    mailbox: Mailbox | None
    leases: Mapping[Service, Lease]
    link: TcpLink | None
    """What the nodes reach the broker through; None if they connect to it themselves."""

    @cached_property
    def shared(self) -> AppNode:
        """The settings of a node that connects to the broker itself."""
        return AppNode(
            image=self.image,
            app=self.spec.app,
            app_folder=self.place.folder,
            is_writable=self.place.is_writable,
            pythonpath=self.spec.pythonpath,
            mounts=self.place.mounts,
            run_folder=self.run_folder,
            network=self.network,
            broker_url=self.broker_url,
            results_url=self.results_url,
            env=self._env(self.broker_url),
            labels={RUN_LABEL: self.run_folder.name},
            movable_clocks=self.spec.movable_clocks,
        )

    def of(self, name: str) -> AppNode:
        """Return the settings of a node. Each has a port of its own at the link, if there is one."""
        if self.link is None:
            return self.shared
        url = self.link.url_inside(name, self.broker_url)
        return replace(self.shared, broker_url=url, env=self._env(url))

    def _env(self, broker_url: str) -> dict[str, str]:
        """Return the environment that the settings ask for, for a node that reaches the broker by this URL."""
        known = {BROKER_URL: broker_url, DATABASE_URL: APP_DATABASE_URL_INSIDE}
        env: dict[str, str] = {}
        if (box := self.mailbox) is not None:
            known |= {MAILBOX_HOST: box.host, MAILBOX_PORT: str(SMTP_PORT)}
            env = {"SMTP_HOST": box.host, "SMTP_PORT": str(SMTP_PORT)}
        for lease in self.leases.values():
            known |= lease.values
        return env | rendered(self.spec.env, known) | overriding(self.spec.settings)
