"""The messages between the harness and a stack's link: JSON objects, one a line. Standard library only.

The harness connects to the link's socket for each thing that it wants, and sends an `Order`. The link answers each with
a `Report`. A disturbance lasts until an order ends it, or until its connection ends, however that comes.
"""

from dataclasses import dataclass
from enum import StrEnum

from harness.records.typed_json import Record

SOCKET = "link.sock"
"""The name of the link's socket in the run folder."""
LONGEST_LINE = 1 << 24
"""The most bytes of a line: a report may name many tasks."""


class Way(StrEnum):
    """A direction of a connection."""

    TO_BROKER = "to-broker"
    """The bytes that the client sends."""
    TO_CLIENT = "to-client"
    """The bytes that the broker sends."""


class Trouble(StrEnum):
    """The kinds of trouble that the link makes for a connection."""

    LATENCY = "latency"
    """Every byte comes `amount` seconds late."""
    BANDWIDTH = "bandwidth"
    """At most `amount` bytes per second pass, of all connections of a client together."""
    HALF_OPEN = "half-open"
    """Nothing passes, not even the end of the connection. New connections are accepted, and get no answer."""
    RESET = "reset"
    """The connections are reset; what was on its way is gone. If only one end is told, the other stays open, and hears
    nothing more until the end of the disturbance."""
    DROP_CONFIRMS = "drop-confirms"
    """The broker's confirms of published messages are dropped."""
    HOLD_ACKS = "hold-acks"
    """The client's acknowledgements of delivered messages wait until the end."""


@dataclass(frozen=True, kw_only=True)
class Disturbance(Record):
    """A disturbance of the connections of one client, or of all."""

    trouble: Trouble
    client: str | None = None
    """The name of a node; None for all that use the link."""
    way: Way | None = None
    """The direction of LATENCY, BANDWIDTH and HALF_OPEN; for RESET, the side that is told. None for both."""
    amount: float = 0.0
    """Seconds for LATENCY, bytes per second for BANDWIDTH."""
    new_too: bool = False
    """For RESET: connections that are opened before its end are reset, too."""


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """An order to the link. Without a member, it only reports on the disturbance of this connection."""

    listen: str | None = None
    """The name of a client, for which the link is to listen on a port of its own."""
    disturb: Disturbance | None = None
    """What begins."""
    end: bool = False
    """True if the disturbance of this connection ends."""


@dataclass(frozen=True, kw_only=True)
class Report(Record):
    """The account of what a disturbance has done until now."""

    port: int | None = None
    """For `listen`: the port."""
    error: str | None = None
    """Why the order cannot be obeyed; None if it was."""
    connections: int = 0
    """The number of connections that it met. For RESET, each of them was reset."""
    byte_count: int = 0
    """The number of bytes that came late (LATENCY), had to wait (BANDWIDTH) or were kept back (HALF_OPEN)."""
    passed: int = 0
    """For HALF_OPEN in one direction: the number of bytes that passed in the other one meanwhile."""
    frames: int = 0
    """The number of messages whose confirms were dropped, or whose acknowledgements were held."""
    gone: int = 0
    """The number of acknowledgements that were held when their connection or channel ended, and never arrived."""
    tasks: tuple[str, ...] = ()
    """The ids of the tasks that it met, in the order in which it met them.

    For LATENCY, BANDWIDTH and HALF_OPEN these are the tasks whose message, confirm or acknowledgement came by. For
    HALF_OPEN and RESET, they are also the tasks whose message was neither confirmed nor acknowledged.
    """
