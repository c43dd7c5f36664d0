"""RabbitMQ, a broker: one node, with a separate vhost and user for each stack.

The file is long because all that is asked of RabbitMQ is here: another broker replaces this file alone.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast
from urllib.parse import quote

import amqp
import requests
from amqp.exceptions import AMQPError, NotFound, ResourceLocked

from harness.containers.broker_node import Alarm, BrokerNode, Death, Login, QueueCount, QueueLook, Waiting
from harness.containers.engine import Engine, NodeSpec
from harness.containers.image_recipes import is_ours
from harness.containers.one_off import run_to_end
from harness.errors import BrokerError, EngineError, UsageError, WaitTimeout
from harness.records.message import about
from harness.records.values import Json
from harness.wait import wait_until

AMQP_PORT = 5672
MANAGEMENT_PORT = 15672
HOSTNAME = "broker"
_ADMIN = "harness"
_ALL_RIGHTS = {"configure": ".*", "write": ".*", "read": ".*"}
_TIMEOUT_S = 10
_PROBE_TIMEOUT_S = 3
_SAMPLED_S = 5.0
"""The interval, in seconds, at which quorum queues report their counts, by RabbitMQ's default."""
_SAMPLED_S_OF_OURS = 0.5
"""The same interval as `advanced.config` in the harness's own image sets it."""
_RETURN_TIMEOUT_S = 2
_LIMITS = {
    Alarm.MEMORY: ("vm_memory_monitor:set_vm_memory_high_watermark", "vm_memory_high_watermark", "{absolute, 1}"),
    Alarm.DISK: ("rabbit_disk_monitor:set_disk_free_limit", "disk_free_limit", str(10**18)),
}
"""By alarm: the function that sets its limit until the next start, the setting of the start, and a limit that no
machine keeps."""
_RESOURCES = {Alarm.MEMORY: "memory", Alarm.DISK: "disk space"}
"""The names of the alarms' resources in the management API."""
DATA = "/srv/rabbitmq/mnesia"
"""The place of its data, as in the harness's own image."""
_LET_ALL_WRITE = (
    f'if [ "$(id -u)" = 0 ]; then chmod -R a+rwX {DATA}; else find {DATA} -user "$(id -u)" -exec chmod a+rwX {{}} +; fi'
)
"""Only root may change what another user owns. The server of the image before has changed what was its own."""
_ONE_OFF_TIMEOUT_S = 60.0
_GUEST = Login(user="guest", password="guest", vhost="/", amqp_url_inside="", amqp_url_outside="")  # noqa: S106 - its default.


class Broker(BrokerNode):
    """RabbitMQ with its management API, both on loopback.

    RabbitMQ 4.0 writes new vhosts, users and queues to disk up to two seconds late. A SIGKILL within that time can
    lose a durable queue together with persistent messages whose publishing was confirmed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        image: str,
        network: str,
        name: str = HOSTNAME,
        kept_ports: Sequence[int] = (),
        volume: str | None = None,
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: RabbitMQ with the management plugin enabled.
            network: the network of the nodes that use it.
            name: the node's name, and its host's.
            kept_ports: the ports of this machine for AMQP and for the management API, which a restart does not change;
                by default, and for one that is 0, the engine picks another at each start.
            volume: keeps its data, which then outlive its container; None to keep them in it.
        """
        self._password = secrets.token_urlsafe(24)
        spec = NodeSpec(
            name=name,
            image=image,
            env={
                "RABBITMQ_DEFAULT_USER": _ADMIN,
                "RABBITMQ_DEFAULT_PASS": self._password,
                **({"RABBITMQ_MNESIA_BASE": DATA} if volume else {}),
            },
            volumes={DATA: volume} if volume else {},
            ports=(AMQP_PORT, MANAGEMENT_PORT),
            kept_ports={
                inside: port for inside, port in zip((AMQP_PORT, MANAGEMENT_PORT), kept_ports, strict=False) if port
            },
            # RabbitMQ keeps its data under the host name. Under another one, a restart would lose the data.
            hostname=name,
            user=None,
        )
        super().__init__(engine, spec, network=network, missing=self._lacks)
        self._http = requests.Session()
        self._http.auth = (_ADMIN, self._password)
        # A proxy that the environment names cannot reach this machine's loopback.
        self._http.trust_env = False

    def start(self) -> None:
        """Start it, or start it again if it exited. Raises EngineError if the engine refuses."""
        if self._container is None and self.spec.volumes:
            self._let_all_write()
        super().start()

    def upgrade(self, image: str) -> None:
        """Start it anew from another image, with the data that it had. It must be down."""
        if not self.spec.volumes:
            raise UsageError(f"the data of {self.name} are in its container alone, so that no other one can have them.")
        self._let_all_write()
        super().remove()
        before, self.spec = self.spec, replace(self.spec, image=image)
        try:
            super().start()
        except EngineError:
            # It wrote nothing, so that the data still belong to the server before.
            self.spec = before
            raise

    def _let_all_write(self) -> None:
        """Let every user write the data: the server of another image may run as another one."""
        one_off = NodeSpec(
            name=f"{self.name}-data",
            image=self.spec.image,
            command=("sh", "-c", _LET_ALL_WRITE),
            volumes=self.spec.volumes,
            user=None,
        )
        code, said = run_to_end(self._engine, one_off, timeout_s=_ONE_OFF_TIMEOUT_S)
        if code:
            raise EngineError(f"the data of {self.name} cannot be made writable for every server: {said.strip()}")

    def remove(self) -> None:
        """Kill and remove it, with all its vhosts."""
        super().remove()
        self._http.close()

    def create_vhost(self, name: str) -> Login:
        """Create a vhost, and a user with a random password who has all rights there and none elsewhere.

        Raises:
            BrokerError: the broker refused.
        """
        user, password = f"{name}-{secrets.token_hex(3)}", secrets.token_urlsafe(24)
        self._ask("PUT", f"vhosts/{_quoted(name)}", {})
        self._admit(user, password, name, tags="")
        return self.refresh(Login(user=user, password=password, vhost=name, amqp_url_inside="", amqp_url_outside=""))

    def welcome_guest(self) -> Login:
        """Make the vhost `/` anew, and the administrator `guest` with this password, whom clients take by default.

        Raises:
            BrokerError: the broker refused.
        """
        self.delete_vhost(_GUEST)
        self._admit(_GUEST.user, _GUEST.password, _GUEST.vhost, tags="administrator")
        return self.refresh(_GUEST)

    def refresh(self, login: Login) -> Login:
        """Return the same login with the current URLs."""
        host, port = self.container.host_port(AMQP_PORT)
        return replace(
            login, amqp_url_inside=_url(login, self.name, AMQP_PORT), amqp_url_outside=_url(login, host, port)
        )

    def delete_vhost(self, login: Login) -> None:
        """Delete a vhost with its content, close its connections, and delete its user. A second call does nothing.

        The vhost `/` is there again, and empty: the broker is ready only if it has one.

        Raises:
            BrokerError: the broker refused.
        """
        self._ask("DELETE", f"vhosts/{_quoted(login.vhost)}", absent_is_fine=True)
        if login.vhost == _GUEST.vhost:
            self._ask("PUT", f"vhosts/{_quoted(login.vhost)}", {})
        self._ask("DELETE", f"users/{_quoted(login.user)}", absent_is_fine=True)

    def admit(self, user: str, password: str, vhost: str) -> None:
        """Add a user with all rights in a vhost and none elsewhere, and access to that part of the management page.

        Raises:
            BrokerError: the broker refused.
        """
        self._admit(user, password, vhost, tags="management")

    def _admit(self, user: str, password: str, vhost: str, *, tags: str) -> None:
        self._ask("PUT", f"users/{_quoted(user)}", {"password": password, "tags": tags})
        self._ask("PUT", f"permissions/{_quoted(vhost)}/{_quoted(user)}", _ALL_RIGHTS)

    @property
    def administrator(self) -> tuple[str, str]:
        """Name and password of the one user with all rights; do not show them or leave them in a run folder."""
        return _ADMIN, self._password

    @property
    def management_url(self) -> str:
        """The URL of the management page; a restart may change it."""
        host, port = self.container.host_port(MANAGEMENT_PORT)
        return f"http://{host}:{port}"

    def connections(self, login: Login) -> dict[str, str]:
        """Return the open connections of a user: the address of the client by the connection's name.

        Raises:
            BrokerError: the broker does not answer.
        """
        # Lists of other kinds are made of statistics, which are up to five seconds old.
        found = self._ask("GET", f"connections/username/{_quoted(login.user)}")
        # The name is `client:port -> server:port`.
        return {one["name"]: one["name"].partition(" -> ")[0].rpartition(":")[0].strip("[]") for one in found}

    def close_connection(self, name: str) -> bool:
        """Close a connection; False if it is gone, or younger than the statistics, by which this request finds it.

        Raises:
            BrokerError: the broker refused, or does not answer.
        """
        path = f"connections/{_quoted(name)}"
        if self._ask("GET", path, absent_is_fine=True) is None:
            return False
        self._ask("DELETE", path, absent_is_fine=True)
        return True

    def raise_alarm(self, alarm: Alarm) -> None:
        """Change the limit of a resource so that the broker raises an alarm, in all vhosts."""
        setter, _, extreme = _LIMITS[alarm]
        self._evaluate(f"{setter}({extreme}).")

    def end_alarm(self, alarm: Alarm) -> None:
        """Set the limit back with which the broker was started."""
        setter, setting, _ = _LIMITS[alarm]
        self._evaluate(f"{{ok, Limit}} = application:get_env(rabbit, {setting}), {setter}(Limit).")

    def alarms(self) -> set[Alarm]:
        """Return the alarms that are raised now. Raises BrokerError."""
        said = self._ask("GET", "health/checks/local-alarms", failure_is_fine=True)
        raised = {alarm["resource"] for alarm in said.get("alarms", ())}
        return {alarm for alarm, resource in _RESOURCES.items() if resource in raised}

    def _evaluate(self, expression: str) -> None:
        """Let the broker evaluate an expression of Erlang. Raises EngineError."""
        self.container.execute("rabbitmqctl", "eval", expression)

    @property
    def _sampled_s(self) -> float:
        """The interval, in seconds, at which quorum queues report their counts. Only our own image has our setting."""
        return _SAMPLED_S_OF_OURS if is_ours(self.spec.image) else _SAMPLED_S

    def make_durable(self) -> None:
        """Write to disk what was declared until now. Without it, RabbitMQ 4.0 takes up to two seconds."""
        # Where the metadata are not in Mnesia, they are written at once, and it answers that there is none.
        self._evaluate("mnesia:sync_log().")

    def queues(self, vhost: str) -> list[QueueCount]:
        """Return all queues of a vhost with the messages that they hold now, sorted by name.

        Raises:
            BrokerError: the broker does not answer, there is no such vhost, or after 10 seconds it still does
                not report the number of messages of every queue.
        """
        path = f"queues/{_quoted(vhost)}?disable_stats=true"
        untold: set[str] = set()
        policies = self._ask("GET", f"policies/{_quoted(vhost)}")

        def probe() -> tuple[list[QueueCount]] | None:
            nonlocal untold
            # Totals come from the queues themselves, so they are live; statistics are up to five seconds old. But the
            # totals leave out a queue that is slow to answer, and may be empty for a vhost that just came up. The list
            # of names is kept elsewhere, and shows which queue is missing.
            names = {queue["name"] for queue in self._ask("GET", path)}
            counts = [
                QueueCount(
                    name=queue["name"],
                    ready=queue["messages_ready"],
                    unacked=queue["messages_unacknowledged"],
                    sampled_s=0.0 if queue["type"] == "classic" else self._sampled_s,
                    kind=queue["type"],
                    durable=queue.get("durable"),
                    arguments=_arguments(queue, policies),
                )
                for queue in self._ask("GET", f"{path}&enable_queue_totals=true")
                if "messages_ready" in queue and "messages_unacknowledged" in queue
            ]
            untold = names - {count.name for count in counts}
            # In a tuple: an empty list is a valid answer, but the wait ends only with a true value.
            return None if untold else (counts,)

        try:
            (counts,) = wait_until(probe, what="the broker counts its messages", timeout_s=_TIMEOUT_S)
        except WaitTimeout:
            missing = ", ".join(sorted(untold))
            raise BrokerError(f"The broker does not say how many messages these queues hold: {missing}.") from None
        return sorted(counts, key=lambda count: count.name)

    def look(self, vhost: str, queues: Iterable[str]) -> dict[str, QueueLook]:
        """Return the numbers of ready messages and of consumers of some queues, as the queues themselves report them.

        The management API has the number of consumers, and all counts of some kinds of queue, seconds later. A queue
        that is gone, or that is exclusive to another connection, is left out.

        Raises:
            BrokerError: the broker does not answer.
        """
        try:
            with self._amqp(vhost) as connection:
                found = {}
                for queue in queues:
                    try:
                        with connection.channel() as channel:
                            said = channel.queue_declare(queue, passive=True)
                    except (NotFound, ResourceLocked):
                        continue
                    found[queue] = QueueLook(ready=said.message_count, consumers=said.consumer_count)
                return found
        except (OSError, AMQPError) as error:
            raise BrokerError(f"The queues of vhost {vhost!r} could not be asked: {error}") from error

    def consumers(self, vhost: str) -> dict[str, list[str]]:
        """Return the tags of the consumers of each queue that has any, as they were up to five seconds ago.

        Raises:
            BrokerError: the broker does not answer.
        """
        found: dict[str, list[str]] = {}
        for consumer in self._ask("GET", f"consumers/{_quoted(vhost)}"):
            found.setdefault(consumer["queue"]["name"], []).append(consumer["consumer_tag"])
        return found

    def reaches_a_queue(self, vhost: str, exchange: str, routing_key: str | None) -> bool:
        """Return whether a message that is published to an exchange would reach a queue.

        Only a direct exchange compares its bindings with the routing key; of another one, any binding counts.

        Raises:
            BrokerError: the broker does not answer.
        """
        path = f"exchanges/{_quoted(vhost)}/{_quoted(exchange)}"
        found = self._ask("GET", f"{path}?disable_stats=true", absent_is_fine=True)
        if found is None:
            return False
        keys = [binding["routing_key"] for binding in self._ask("GET", f"{path}/bindings/source")]
        return bool(keys) and (routing_key is None or found["type"] != "direct" or routing_key in keys)

    def peek(self, vhost: str, queue: str) -> list[Waiting]:
        """Return every ready message of a queue, in its order. All of them stay.

        They are fetched and given back, so that they are marked `redelivered` afterwards. During the call, consumers do
        not get them. Use it at the end of a run, or for queues without consumers.

        Raises:
            BrokerError: the queue could not be read to its end.
        """
        try:
            with self._amqp(vhost) as connection:
                channel = connection.channel()
                waiting = []
                while (message := channel.basic_get(queue)) is not None:
                    waiting.append(_waiting(message))
                # Closing the channel gives all messages back at once. In RabbitMQ 4.0, recovering or rejecting each one
                # searches through all of them, and took 18 s for 20,000 messages.
                channel.close()
                self._await_return(connection, queue, len(waiting))
                return waiting
        except (OSError, AMQPError) as error:
            raise BrokerError(f"Queue {queue!r} of vhost {vhost!r} could not be read: {error}") from error

    def _await_return(self, connection: amqp.Connection, queue: str, count: int) -> None:
        """Wait until `count` messages are back in a queue. Consumers may take them first; that is no error."""
        with connection.channel() as channel, contextlib.suppress(WaitTimeout):
            wait_until(
                lambda: channel.queue_declare(queue, passive=True).message_count >= count,
                what=f"{count} messages are back in {queue}",
                timeout_s=_RETURN_TIMEOUT_S,
                interval_s=0.01,
            )

    def _ask(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        absent_is_fine: bool = False,
        failure_is_fine: bool = False,
    ) -> Json:
        """Send one request to the management API, and return the decoded answer; None if it is empty.

        Args:
            method: of HTTP.
            path: below `/api/`.
            body: is sent as JSON.
            absent_is_fine: whether to return None if there is no such thing.
            failure_is_fine: whether to return the answer of a health check that fails.
        """
        url = f"{self.management_url}/api/{path}"
        doing = f"{method} /api/{path.partition('?')[0]}"
        try:
            answer = self._http.request(method, url, json=body, timeout=_TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise BrokerError(f"The management API does not answer {doing}: {error}") from error
        if absent_is_fine and answer.status_code == requests.codes.not_found:
            return None
        is_failed_check = answer.status_code == requests.codes.service_unavailable and failure_is_fine
        if not answer.ok and not is_failed_check:
            raise BrokerError(f"The broker refused {doing}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    @contextlib.contextmanager
    def _amqp(self, vhost: str, timeout_s: float = _TIMEOUT_S) -> Iterator[amqp.Connection]:
        host, port = self.container.host_port(AMQP_PORT)
        connection = amqp.Connection(
            host=f"{host}:{port}",
            userid=_ADMIN,
            password=self._password,
            virtual_host=vhost,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            write_timeout=timeout_s,
            confirm_publish=True,
        )
        try:
            connection.connect()
            yield connection
        finally:
            with contextlib.suppress(OSError, AMQPError):
                connection.close()
            # On a broken connection, `close` fails and leaves the socket open.
            connection.collect()

    def _lacks(self) -> str | None:
        """Check the listener and the management API as a client would; return the first fault, or None if all work."""
        try:
            with self._amqp("/", _PROBE_TIMEOUT_S) as connection:
                channel = connection.channel()
                queue = cast("str", channel.queue_declare(exclusive=True).queue)
                channel.basic_publish_confirm(amqp.Message(b"ready?"), routing_key=queue, timeout=_PROBE_TIMEOUT_S)
                if channel.basic_get(queue, no_ack=True) is None:
                    return "a confirmed message could not be fetched"
            self._ask("GET", "vhosts")
        except (OSError, AMQPError, EngineError) as error:
            return f"AMQP ({error or type(error).__name__})"
        except BrokerError as error:
            return str(error)
        return None


def version_of(engine: Engine, image: str) -> str:
    """Return the version of RabbitMQ in an image, such as `4.0.5`. Raises UsageError if there is none."""
    spec = NodeSpec(name="broker-version", image=image, command=("rabbitmqctl", "version"), user=None)
    code, said = run_to_end(engine, spec, timeout_s=_ONE_OFF_TIMEOUT_S)
    found = re.findall(r"^\d+\.\d+\.\d+\S*$", said, re.MULTILINE)
    if code or not found:
        raise UsageError(f"the image {image} has no RabbitMQ that tells its version; it says {said.strip()[-300:]!r}.")
    return str(found[-1])


def _arguments(queue: Mapping[str, Json], policies: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Return the arguments of a queue's declaration, and those of the matching policy with the highest priority."""
    fitting = [
        policy
        for policy in policies
        if re.search(policy["pattern"], queue["name"])
        and policy["apply-to"] in {"all", "queues", f"{queue['type']}_queues"}
    ]
    definition = max(fitting, key=lambda policy: policy["priority"])["definition"] if fitting else {}
    return {**{f"x-{key}": value for key, value in definition.items()}, **queue.get("arguments", {})}


def _waiting(message: amqp.Message) -> Waiting:
    """Return a message as its headers describe it; a message of another program may have none of them."""
    headers, body = message.headers or {}, None
    if not headers.get("id"):
        # Celery's old message protocol has the id in the body.
        with contextlib.suppress(ValueError, TypeError):
            body = json.loads(message.body)
    said = about(headers, body)
    deaths = headers.get("x-death")
    death = None
    if isinstance(deaths, list) and deaths:
        last = deaths[0]
        death = Death(queue=str(last.get("queue")), reason=str(last.get("reason")), count=int(last.get("count", 1)))
    return Waiting(task=_text(said.get("id")), name=_text(said.get("task")), eta=_text(said.get("eta")), death=death)


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _url(login: Login, host: str, port: int) -> str:
    return f"amqp://{_quoted(login.user)}:{_quoted(login.password)}@{host}:{port}/{_quoted(login.vhost)}"
