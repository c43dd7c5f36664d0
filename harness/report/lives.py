"""The lives of a run's tasks, in columns: a hundred thousand of them fit into some ten megabytes."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

EFFECT = "effect"
"""The kind of an event that is no journal line: the task's effect was seen in the world."""
NO_PROCESS = -1
"""The process of an event that no process of the run has told of, such as an effect."""


class Words:
    """Texts, each of them once. A hundred thousand tasks have few different names and results."""

    def __init__(self) -> None:
        """Begin with the empty text, whose number is 0."""
        self.all: list[str] = [""]
        self._numbers = {"": 0}

    def number(self, text: str | None) -> int:
        """Return the number of a text, which is added if it is new; None counts as the empty one."""
        known = self._numbers.setdefault(text or "", len(self.all))
        if known == len(self.all):
            self.all.append(text or "")
        return known


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that has kept a journal."""

    node: str
    pid: int
    role: str


@dataclass(frozen=True, kw_only=True)
class Happening:
    """An event in the life of a task."""

    t: float
    """Unix time in seconds."""
    kind: str
    """The kind of the journal line, or EFFECT. The end of a process belongs to what had not ended in it."""
    process: int
    """The number of its process; NO_PROCESS if there is none."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Life:
    """The life of one task."""

    task: str
    name: str
    fate: str
    """Its fate, or `unsent` if nobody intended to send it."""
    status: str
    """The state in its row; empty if it has none."""
    result: str
    """The result in its row, shortened; empty if it has none."""
    note: str
    parent: int | None
    """The number of the task that has sent it, if that is shown too."""
    events: tuple[Happening, ...]


@dataclass(kw_only=True)
class Lives:
    """The lives that a view shows, in the order in which the tasks were sent."""

    total: int = 0
    """The number of all tasks of the run, shown or not."""
    total_not_ok: int = 0
    base_t: float = 0.0
    """The time from which the times of the events count."""
    words: Words = field(default_factory=Words)
    processes: tuple[Process, ...] = ()
    tasks: list[str] = field(default_factory=list)
    names: "array[int]" = field(default_factory=lambda: array("l"))
    fates: "array[int]" = field(default_factory=lambda: array("l"))
    statuses: "array[int]" = field(default_factory=lambda: array("l"))
    results: "array[int]" = field(default_factory=lambda: array("l"))
    notes: "array[int]" = field(default_factory=lambda: array("l"))
    parents: "array[int]" = field(default_factory=lambda: array("l"))
    """The number of the parent; -1 for none."""
    begins: "array[int]" = field(default_factory=lambda: array("l", [0]))
    """The first event of each task, and at the end the number of all events."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    """Tenths of milliseconds from `base_t`."""
    kinds: "array[int]" = field(default_factory=lambda: array("l"))
    owners: "array[int]" = field(default_factory=lambda: array("l"))
    """The process of each event."""
    texts: "array[int]" = field(default_factory=lambda: array("l"))
    follows: list[tuple[int, int]] = field(default_factory=list)
    """A task and the one that follows it, by their numbers."""
    unsent: list[tuple[int, str, str]] = field(default_factory=list)
    """Tasks that were never sent: the number of the task that each should have followed, its id and its name."""
    tracebacks: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of lives."""
        return len(self.tasks)

    def __iter__(self) -> Iterator[Life]:
        """Yield each life."""
        return map(self.life, range(len(self)))

    @property
    def rule(self) -> str:
        """The sentence that tells which tasks are shown."""
        if len(self) == self.total:
            return f"All {self.total:,} tasks are here." if self.total else "No task was sent."
        here = f"{len(self):,} of {self.total:,} tasks are here"
        if self.total_not_ok > len(self):
            more = f"of the {self.total_not_ok:,} that are not ok, first those that findings name"
        else:
            bad = f"the {self.total_not_ok:,} that are not ok" if self.total_not_ok else "none is not ok"
            more = f"{bad}, and a sample of {len(self) - self.total_not_ok:,} others, chosen by a hash of their ids"
        return f"{here}: {more}. The journal has all."

    def add(self, row: Sequence[str | int | None]) -> None:
        """Add a task: id, name, fate, status, result, note, and the number of its parent."""
        task, name, fate, status, result, note, parent = row
        self.tasks.append(str(task))
        for column, text in zip(
            (self.names, self.fates, self.statuses, self.results, self.notes),
            (name, fate, status, result, note),
            strict=True,
        ):
            column.append(self.words.number(None if text is None else str(text)))
        self.parents.append(-1 if parent is None else int(parent))

    def add_event(self, number: int, t: float, kind: str, process: int, text: str) -> None:
        """Add an event. The tasks come in their order, and each task's events in theirs."""
        while len(self.begins) <= number:
            self.begins.append(len(self.times))
        self.times.append(round((t - self.base_t) * 10_000))
        self.kinds.append(self.words.number(kind))
        self.owners.append(process)
        self.texts.append(self.words.number(text))

    def end(self) -> None:
        """Tell that no more events come."""
        while len(self.begins) <= len(self.tasks):
            self.begins.append(len(self.times))

    def life(self, number: int) -> Life:
        """Return the life of the task with a number."""
        words = self.words.all
        events = range(self.begins[number], self.begins[number + 1])
        return Life(
            task=self.tasks[number],
            name=words[self.names[number]],
            fate=words[self.fates[number]],
            status=words[self.statuses[number]],
            result=words[self.results[number]],
            note=words[self.notes[number]],
            parent=None if self.parents[number] < 0 else self.parents[number],
            events=tuple(
                Happening(
                    t=self.base_t + self.times[at] / 10_000,
                    kind=words[self.kinds[at]],
                    process=self.owners[at],
                    text=words[self.texts[at]],
                )
                for at in events
            ),
        )

    def find(self, part: str) -> Iterator[int]:
        """Yield the numbers of the tasks whose id contains a text."""
        return (number for number, task in enumerate(self.tasks) if part in task)
