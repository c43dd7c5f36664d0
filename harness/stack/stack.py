"""The stack: its own vhost, workers, mailbox, results and producer, on a session's broker.

The file is long because one class keeps the order in which the parts come up, are looked at and are taken down.
"""

import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness.audit.remains import Remains
from harness.audit.results import Results
from harness.audit.run_folder import RunFolder
from harness.containers.app_node import AppNode
from harness.containers.beat import Beat, FastClock, ShiftedClock
from harness.containers.broker_disk import BrokerDisk
from harness.containers.broker_node import BrokerNode, Login, QueueCount, QueueLook, Waiting
from harness.containers.mailbox import Mailbox
from harness.containers.node import Node
from harness.containers.ownership import RUN_LABEL
from harness.containers.service import Lease
from harness.containers.tcp_link import TcpLink
from harness.containers.web_node import NAME as WEB
from harness.containers.web_node import WebNode
from harness.containers.worker import Worker
from harness.errors import ResultsError, UsageError
from harness.faults.injections import AnyFault, Injections
from harness.project.needs import Service
from harness.project.templates import asks_for_mailbox
from harness.records.expectation import Promise
from harness.records.finding_codes import Code
from harness.records.moment import Moment
from harness.records.values import Json
from harness.records.verdict import Finding, Verdict
from harness.stack import deaf_workers, left_in_broker, preparation, settings_in_force, settling
from harness.stack.accounted_system import PRODUCER, AccountedSystem, Watch
from harness.stack.app_nodes import AppNodes
from harness.stack.app_place import AppPlace, remove_copy_of
from harness.stack.holds import Hold, Holds
from harness.stack.limits import TIMEOUT_S, Limits
from harness.stack.result_store import result_store
from harness.stack.row_effects import RowEffects
from harness.stack.shared_parts import SharedParts
from harness.stack.stack_broker import StackBroker
from harness.stack.stack_spec import StackSpec

__all__ = ["Stack", "StackSpec"]

_UNASKED = Limits(timeout_s=TIMEOUT_S, limit_s=120.0)
_LOG_LINES = 20
_PACKAGES = ("celery", "kombu", "sqlalchemy", "testcontainers", "docker")


class Stack(AccountedSystem):
    """A fresh, isolated stack. A context manager: everything that it starts is removed when it ends."""

    _not_running = "the stack is not running; use it as `with Stack(...) as stack:`."

    def __init__(
        self,
        session: SharedParts,
        spec: StackSpec,
        folder: RunFolder,
        *,
        promise: Promise | None = None,
        about: Mapping[str, Json] | None = None,
    ) -> None:
        """Create the stack without starting anything.

        Args:
            session: has the broker.
            spec: what to start.
            folder: the run's folder, new and empty.
            promise: what is demanded of every task.
            about: more for run.json, such as scenario and seed.
        """
        super().__init__(folder, promise=promise, about=about)
        self._session = session
        self.spec = spec
        self._app_name, self._app_folder = spec.app, spec.app_folder
        self._store = result_store(spec.results, folder, session)
        self.leases = dict[Service, Lease]()
        """This stack's databases in the services that it asked for."""
        self.workers: list[Worker] = []
        self.beats: list[Beat] = []
        self._web: WebNode | None = None
        self._mailbox: Mailbox | None = None
        self._link: TcpLink | None = None
        self._broker = StackBroker(session, spec, folder)
        self._apps: AppNodes | None = None
        self._rows: RowEffects | None = None
        self.holds = Holds(folder.path, node=PRODUCER)
        """The tasks that are held, and the moments that were passed."""
        self._injections = Injections(self)
        self.accounted = 0
        """The number of tasks that were sent by others than workers when the last audit was made."""
        self.limits_left = _UNASKED
        """The limits for a settling that was not asked for: what is left of the last one's limits, and no more than two
        minutes.
        """

    def _start(self) -> None:
        # First of all: the ports of the session's broker may change when it joins another network.
        network = self._session.network_of(self.spec.network)
        self._store.open()
        self._closing.callback(self._store.close)
        for service in self.spec.services:
            self.leases[service] = lease = self._session.services.lease(service)
            self._closing.callback(self._session.services.end, service, lease)
        name = self.folder.path.name
        login = self._closing.enter_context(self._broker.opened(network))
        if self.spec.link:
            self._link = self._started_link(login, network)
        self._start_producer(self.broker_url, self._store.url_outside, reach=self.holds.reach)
        nodes: list[Node] = []
        if self.spec.mailbox or asks_for_mailbox(self.spec.env):
            self._mailbox = Mailbox(
                self._session.engine,
                image=self._session.mailbox_image,
                run_folder=self.folder.path,
                network=network,
                # Stacks share the network, so that the plain name could be another stack's mailbox.
                host=f"mailbox-{secrets.token_hex(4)}",
                labels={RUN_LABEL: name},
            )
            nodes.append(self._mailbox)
        # Whatever keeps files in it is removed before.
        self._closing.callback(remove_copy_of, self.folder.path)
        self._apps = apps = AppNodes(
            spec=self.spec,
            place=AppPlace.of(self.spec, self.folder.path, self._say),
            image=self._session.image_of(self.spec.image, self.spec.build),
            run_folder=self.folder.path,
            network=network,
            broker_url=login.amqp_url_inside,
            results_url=self._store.url_inside,
            mailbox=self._mailbox,
            leases=self.leases,
            link=self._link,
        )
        self.workers = [self._worker(f"worker-{number}") for number in range(1, self.spec.workers + 1)]
        nodes += self.workers
        self._write_run_file([PRODUCER, *(node.name for node in nodes)])
        self._closing.callback(self._remove, nodes)
        # Neither a process that is held nor one that is broken ends when it is asked to.
        self._closing.callback(self.holds.close)
        self._closing.callback(self._injections.heal_all)
        if self.spec.prepare:
            # A command may send a mail.
            self._bring_up([node for node in nodes if node is self._mailbox])
            preparation.prepare(
                self._session.engine, apps.shared, self.spec.prepare, logs=self.folder.logs, say=self._say
            )
        self._rows = RowEffects(self.spec.effects, apps.shared, self.leases.get(Service.POSTGRESQL))
        self._rows.begin()
        self._bring_up([node for node in nodes if not node.is_up()])
        self._broker.make_durable()
        self._learn_routes()
        self._session.tell_concurrency(self.spec, self.ledger.settings.values())

    def _started_link(self, login: Login, network: str) -> TcpLink:
        link = TcpLink(
            self._session.engine,
            image=self._session.mailbox_image,
            run_folder=self.folder.path,
            network=network,
            host=f"link-{secrets.token_hex(4)}",
            broker_url=login.amqp_url_inside,
            outside=PRODUCER,
            labels={RUN_LABEL: self.folder.path.name},
        )
        self._closing.callback(self._remove, [link])
        self._bring_up([link])
        return link

    @staticmethod
    def _bring_up(nodes: Sequence[Node]) -> None:
        if nodes:
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(Node.start, nodes))
        for node in nodes:
            node.wait_ready()

    def _worker(self, name: str) -> Worker:
        app, spec = self._app_node(name), self.spec
        return Worker(
            self._session.engine,
            app,
            name=name,
            options=spec.options,
            queues=spec.queues,
            entrypoint=spec.entrypoint,
        )

    def _app_node(self, name: str) -> AppNode:
        """Return the settings of a node that runs the app. Raises UsageError if the stack is not running."""
        if self._apps is None:
            raise UsageError(self._not_running)
        return self._apps.of(name)

    def _running_login(self) -> Login:
        if self._broker.login is None:
            raise UsageError(self._not_running)
        return self._broker.login

    @property
    def mailbox(self) -> Mailbox:
        """The mail server of this stack. Raises UsageError if it has none."""
        if self._mailbox is None:
            raise UsageError("this stack has no mailbox; ask for one with mailbox=True.")
        return self._mailbox

    @property
    def link(self) -> TcpLink:
        """The link through which the clients reach the broker. Raises UsageError if this stack has none."""
        if self._link is None:
            raise UsageError(
                "this stack has no link to disturb; ask for one with @pytest.mark.stack(link=True), or with link=True "
                "in its StackSpec."
            )
        return self._link

    @property
    def results(self) -> Results:
        """The result tables of this stack."""
        return self._store.results

    @property
    def broker(self) -> BrokerNode:
        """The broker. Unless it is the stack's own, what is done to it affects other stacks as well."""
        return self._broker.node

    @property
    def owns_broker(self) -> bool:
        """True if no other stack uses the broker."""
        return self.spec.own_broker

    @property
    def broker_disk(self) -> BrokerDisk:
        """The small disk of the broker's data. Raises UsageError if it has none."""
        return self._broker.disk

    def upgrade_broker(self, image: str, timeout_s: int = 60) -> None:
        """Start the stack's own broker anew from another image, with its data, and return when it is ready.

        Raises:
            UsageError: it is not the stack's own, or the stack has no `broker_image`.
            StartError: it does not come up with these data. Another upgrade, back to the image before, may succeed.
        """
        self._running_login()
        self._broker.upgrade(image, timeout_s)

    @property
    def broker_was_killed(self) -> bool:
        """True if the broker had not ended in time at the last upgrade, also at one that failed, and was killed."""
        return self._broker.was_killed

    @property
    def login(self) -> Login:
        """The user and the vhost of this stack. Raises UsageError if the stack is not running."""
        return self._running_login()

    @property
    def broker_url(self) -> str:
        """The broker's URL for what sends tasks from this machine: through the link, if this stack has one."""
        url = self._running_login().amqp_url_outside
        return url if self._link is None else self._link.url_outside(url)

    def hold(
        self, name: str | None, moment: Moment, *, task: str | None = None, nth: int = 1, node: str | None = None
    ) -> Hold:
        """Hold the next task that reaches a moment, until `settle` or the handle lets it go on; see `Holds.hold`."""
        self._running_login()
        return self.holds.hold(name, moment, task=task, nth=nth, node=node)

    def inject(self, fault: AnyFault) -> AnyFault:
        """Break something, and return the fault when it is seen broken; it is a context manager that heals.

        `settle` heals what is still broken, and says of each fault whether it landed and which tasks it met.

        Raises:
            UsageError: the fault was used before, or there is nothing that it could break.
            HarnessError: it cannot be injected. Nothing is broken then.
        """
        self._running_login()
        return self._injections.inject(fault)

    def add_worker(self) -> Worker:
        """Start one more worker of the same kind, and return it when it is ready."""
        return self.add_workers(1)[0]

    def add_workers(self, count: int) -> list[Worker]:
        """Start more workers of the same kind at once, and return them when all are ready."""
        first = len(self.workers) + 1
        added = [self._worker(f"worker-{number}") for number in range(first, first + count)]
        self.workers += added
        self._add(added)
        return added

    def add_beat(
        self, *, ahead_s: float = 0.0, clock: FastClock | None = None, settings: Mapping[str, Json] | None = None
    ) -> Beat:
        """Start `celery beat` for the app's own schedule, and return it when it is ready.

        Nothing comes to rest while it sends: `stop` it before `settle`.

        Args:
            ahead_s: how many seconds its clock is ahead of the real one, so that a crontab need not be waited for.
            clock: instead, a clock that runs faster.
            settings: Celery settings that override the app's own.

        Raises:
            UsageError: both `ahead_s` and `clock` are given.
        """
        if ahead_s and clock is not None:
            raise UsageError("beat has one clock: give ahead_s or clock.")
        own = ShiftedClock(offset_s=ahead_s) if ahead_s else clock
        name = f"beat-{len(self.beats) + 1}"
        all_settings = {**self.spec.settings, **(settings or {})}
        beat = Beat(self._session.engine, self._app_node(name), name=name, clock=own, settings=all_settings)
        self.beats.append(beat)
        self.add(beat)
        return beat

    def add_web(self, routes: str = "", *, port: int = 0) -> WebNode:
        """Start the web producer, and return it when it answers.

        Args:
            routes: the module with the app's own routes, such as `scenarios.web`; see `harness.inside.web`.
            port: its port on this machine; if it is 0, the engine picks one.

        Raises:
            UsageError: this stack has a web producer already.
        """
        if self._web is not None:
            raise UsageError("this stack has a web producer already.")
        app = replace(self._app_node(WEB), image=self._session.mailbox_image)
        self._web = WebNode(self._session.engine, app, routes=routes, port=port)
        self.add(self._web)
        return self._web

    def add(self, node: Node) -> None:
        """Start one more node, and return when it is ready. Workers and beats must be in their lists by then."""
        self._add([node])

    def _add(self, nodes: Sequence[Node]) -> None:
        self._closing.callback(self._remove, nodes)
        self._write_run_file([*self.folder.read("run.json")["nodes"], *(node.name for node in nodes)])
        self._bring_up(nodes)
        self._learn_routes()

    @property
    def web(self) -> WebNode:
        """The web producer of this stack. Raises UsageError if it has none."""
        if self._web is None:
            raise UsageError("this stack has no web producer; start one with add_web().")
        return self._web

    def _say(self, line: str) -> None:
        """Report something that takes long to the session's `say`."""
        self._session.say(line)

    def follow(self) -> None:
        """Pass what has happened since the last call to the listeners."""
        self._ledger.update()

    @property
    def workers_up(self) -> dict[str, bool]:
        """The state of each worker, by name: True if it is up."""
        return {worker.name: worker.is_up() for worker in self.workers}

    def _come_to_rest(self, limits: Limits, watch: Watch) -> list[Finding]:
        """Wait until nothing is in flight, and record what is left in the broker.

        In flight is what waits in a queue, what a worker holds, and what was sent and has not ended; see
        `harness.stack.settling`. When nothing of it can move any more, waiting ends. What is in flight at the deadline
        is pending.
        """
        self.holds.let_all_go()
        self._injections.heal_all()
        settled = settling.settle(self, limits, say=self._say, watch=watch)
        self.limits_left = limits.left_after(settled, at_most=_UNASKED)
        remains = self._remains()
        if not deaf_workers.all_consume(self.ledger, remains):
            deaf = deaf_workers.find(self, within_s=limits.limit_s - settled.waited_s, say=self._say)
            remains = replace(self._remains(), deaf=deaf)
        differing = settings_in_force.differences(self, remains.queues)
        self.folder.write("broker.json", replace(remains, differing=differing, settled=settled).to_json())
        return [*self._injections.findings(), *self._collect()]

    def _remains(self) -> Remains:
        # A task that is sent after this time may be in a place that was looked at before.
        asked_t = time.time()
        return replace(left_in_broker.remains(self), asked_t=asked_t, alive=sorted(self.alive()))

    def _collect(self) -> list[Finding]:
        """Bring the rows into the run folder. If that fails, the folder has no results, and the finding says why."""
        try:
            self._store.collect()
        except ResultsError as error:
            # With the rows of an earlier look only, the other tasks would seem to have none.
            self.folder.results.unlink(missing_ok=True)
            return [Finding(code=Code.RESULTS_NOT_COPIED, verdict=Verdict.UNKNOWN, count=1, text=str(error))]
        return []

    def _look_at_rows(self) -> list[Finding]:
        return [] if self._rows is None else self._rows.look(self.folder)

    def _before_audit(self) -> None:
        self.accounted = self.ledger.sent_to_app

    def task_queues(self) -> list[QueueCount]:
        """Return what the queues hold, without the queues for the workers' events and remote control.

        Raises:
            BrokerError: the broker does not answer.
        """
        counts = self.broker.queues(self.login.vhost)
        return [count for count in counts if not (count.name.startswith("celeryev.") or count.name.endswith(".pidbox"))]

    def look(self, queues: Collection[str]) -> Mapping[str, QueueLook]:
        """Return what these queues report of their consumers. Raises BrokerError if the broker does not answer."""
        return self.broker.look(self.login.vhost, queues)

    def consumers(self) -> Mapping[str, Sequence[str]]:
        """Return the tags of each queue's consumers, some seconds late. Raises BrokerError on no answer."""
        return self.broker.consumers(self.login.vhost)

    def reaches_a_queue(self, exchange: str, routing_key: str | None) -> bool:
        """Return whether a message would reach a queue from there. Raises BrokerError on no answer."""
        return self.broker.reaches_a_queue(self.login.vhost, exchange, routing_key)

    def alive(self) -> set[str]:
        """Return the names of the workers that run."""
        return {name for name, is_up in self.workers_up.items() if is_up}

    def peek(self, queue: str) -> Sequence[Waiting]:
        """Return the messages that wait in a queue. Raises BrokerError if the broker does not answer."""
        return self.broker.peek(self.login.vhost, queue)

    def logs(self, lines: int = _LOG_LINES) -> Iterator[tuple[str, str]]:
        """Yield the last lines of each node of this stack, as name and text."""
        for node in self.nodes():
            yield node.name, node.last_lines(lines)

    def nodes(self) -> list[Node]:
        """Return the nodes that are this stack's own, without the broker."""
        return [
            *self.workers,
            *self.beats,
            *([self._mailbox] if self._mailbox else []),
            *([self._web] if self._web else []),
        ]

    def close(self) -> None:
        """Save the logs and take down what this stack started. A second time does nothing."""
        super().close()
        self._apps = None

    def _remove(self, nodes: Sequence[Node]) -> None:
        with ThreadPoolExecutor(len(nodes) or 1) as pool:
            list(pool.map(self._remove_one, nodes))

    def _remove_one(self, node: Node) -> None:
        try:
            node.save_logs(self.folder.logs)
        finally:
            node.remove()

    def _write_run_file(self, nodes: Sequence[str]) -> None:
        self.folder.write(
            "run.json",
            {
                **self.folder.head(self._about, *_PACKAGES),
                "stack": self.spec.to_json(),
                "promise": self.promise.to_json(),
                "nodes": list(nodes),
            },
        )
