"""The page of a stack that is up: what it is doing now, and buttons for what can be done to it.

Its script asks the server for the state again and again, and puts it into the page as text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import __version__
from harness.records.moment import Moment
from harness.records.typed_json import Record
from harness.report.document import asset, document
from harness.report.html import Html, table, tag
from harness.report.page_data import plain
from harness.report.page_sections import section

MOMENTS = (Moment.RECEIVED, Moment.STARTED, Moment.EFFECT, Moment.RETURNED, Moment.STORED, Moment.ACKNOWLEDGED)
"""The moments at which the page can hold a task: those in a worker. At others, the sender itself would be held."""
TOKEN_HEADER = "X-Harness-Token"  # noqa: S105 - the header's name.
_INTERVAL_MS = 1_000


@dataclass(frozen=True, kw_only=True)
class LiveNode(Record):
    """A node, as it is now."""

    name: str
    state: str
    is_worker: bool


@dataclass(frozen=True, kw_only=True)
class LiveQueue(Record):
    """A queue, as it is now."""

    name: str
    ready: int
    unacked: int


@dataclass(frozen=True, kw_only=True)
class LiveTask(Record):
    """A task, as far as the journal tells of it."""

    task: str
    name: str
    state: str
    """What was said of it last, such as `sent`, `running` or `SUCCESS`."""
    node: str = ""
    """The node on which it is, or was last."""
    starts: int = 0
    sent_t: float
    """Unix time in seconds."""
    t: float
    """The time of what was said of it last."""


@dataclass(frozen=True, kw_only=True)
class LiveHold(Record):
    """A task that is held at a moment, or is to be held."""

    number: int
    whom: str
    moment: str
    held: str
    """The id and the node of the held task; empty as long as none is."""


@dataclass(frozen=True, kw_only=True)
class LiveView(Record):
    """A stack that is up, as it is now."""

    now_t: float
    sent: int
    ended: int
    running: int
    nodes: tuple[LiveNode, ...]
    queues: tuple[LiveQueue, ...]
    tasks: tuple[LiveTask, ...]
    """The latest ones, the newest first."""
    holds: tuple[LiveHold, ...]
    names: tuple[str, ...]
    """The names of the tasks that the workers know."""
    notes: tuple[str, ...] = ()
    """What could not be asked just now, a sentence each."""


def page(app: str, folder: str, links: Mapping[str, str], *, token: str, first: str = "") -> str:
    """Return the page.

    Args:
        app: the name of the app.
        folder: the run folder.
        links: the addresses of other pages of the stack, by their names.
        token: what a request has to show that changes something.
        first: the label of a button that sends what the app's own routes take first; empty for none.
    """
    about = plain({"token": token, "header": TOKEN_HEADER, "interval": _INTERVAL_MS})
    return document(
        f"up: {app}",
        tag("a", "To the tasks", href="#tasks", class_="skip"),
        tag(
            "header",
            tag("p", tag("span", "connecting", class_="badge large unknown", id="badge"), class_="verdict"),
            tag("h1", app),
            tag("p", tag("code", folder)),
            tag("p", "", id="counts", class_="identity"),
            tag("ul", (tag("li", tag("a", name, href=address)) for name, address in links.items()), class_="links"),
        ),
        tag(
            "main",
            tag("noscript", tag("p", "This page needs a script. `harness status` shows the stack without one.")),
            tag("p", "", id="said", role="status"),
            tag("ul", id="notes", class_="notes", hidden=True),
            _orders(first),
            section("nodes", "Nodes", _table("nodes", "The state of each node", "node", "state", "do")),
            section(
                "holds",
                "Held tasks",
                _table("holds", "Tasks that are held, or that are held when they come", "whom", "moment", "held", "do"),
            ),
            section(
                "queues", "Queues", _table("queues", "The messages in each queue", "queue", "ready", "unacknowledged")
            ),
            section(
                "tasks",
                "Tasks",
                tag("p", "A link opens the whole life of a task, in a report of now."),
                _table(
                    "tasks",
                    "The latest 100, the newest first",
                    "task",
                    "name",
                    "state",
                    "node",
                    "begun",
                    "since it was sent",
                ),
            ),
            id="main",
        ),
        tag("footer", tag("p", f"Celery Harness {__version__}. What is done here stands in the account at the end.")),
        tag("script", Html(about), type="application/json", id="about"),
        scripts=[asset("live.js")],
        style=asset("report.css") + asset("live.css"),
        connects=True,
    )


def _table(name: str, caption: str, *heads: str) -> Html:
    return table(caption, heads, (), id=f"table-{name}")


def _orders(first: str) -> Html:
    """Return the forms."""
    moments = [tag("option", one.value, value=one.value, selected=one is Moment.STARTED) for one in MOMENTS]
    sending = tag(
        "form",
        tag("h3", "Send a task"),
        _field("Name", tag("input", name="name", list="names", required=True, autocomplete="off", spellcheck="false")),
        tag("datalist", id="names"),
        _field("Arguments, a JSON array", tag("input", name="args", value="[]", spellcheck="false")),
        _field("Keyword arguments, a JSON object", tag("input", name="kwargs", value="{}", spellcheck="false")),
        _field("How many", tag("input", name="count", type="number", value=1, min=1, max=1000)),
        tag("button", "Send", type="submit"),
        tag("button", first, type="button", id="first") if first else None,
        id="send",
    )
    holding = tag(
        "form",
        tag("h3", "Hold the next task"),
        _field("Name, or nothing for any", tag("input", name="name", list="names", autocomplete="off")),
        _field("At the moment", tag("select", moments, name="moment")),
        tag("button", "Hold", type="submit"),
        id="hold",
    )
    return section("do", "Do something", tag("div", sending, holding, class_="forms"))


def _field(label: str, field: Html) -> Html:
    return tag("label", f"{label} ", field)
