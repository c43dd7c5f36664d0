"""A time-lapse: what it refuses, what it asks of beat, and how it ends if beat does not do it. No engine is used."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.commands import cli
from harness.containers.beat import FastClock
from harness.errors import StartError, UsageError
from harness.records.expectation import Promise
from harness.records.verdict import Verdict
from harness.running import timelapse
from harness.running.timelapse import Lapse, execute, moment
from harness.stack.stack import StackSpec
from harness.wait import Clock

BERLIN = "Europe/Berlin"
_USUAL: dict[str, Any] = {"root": Path("runs"), "tz": BERLIN, "speed": 1800.0}


def lapse(begin: str = "2026-11-10T12:00", end: str = "2026-11-10T14:00", **options: Any) -> Lapse:
    stack = StackSpec(app="shop.app", workers=0)
    return Lapse(stack=stack, begin=moment(begin), end=moment(end), **{**_USUAL, **options})


# ------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize("speed", [0.0, -1.0, 1e9, math.nan, math.inf])
def test_a_speed_at_which_no_clock_runs_is_refused(speed: float) -> None:
    with pytest.raises(UsageError, match="give a number above 0"):
        lapse(speed=speed)


@pytest.mark.parametrize(
    ("begin", "end", "tz", "said"),
    [
        ("2026-11-10T12:00", "2026-11-10T12:00", BERLIN, "has to be later than --from"),
        ("2026-11-10T12:00", "2026-11-09T12:00", BERLIN, "has to be later than --from"),
        ("2026-11-10T12:00", "2026-11-10T14:00", "Mars/Olympus", "no time zone 'Mars/Olympus'"),
        ("2026-11-10T12:00", "2026-11-10T14:00", "../etc", "no time zone"),
        ("2026-11-10T12:00", "2026-11-10T14:00", "", "no time zone ''"),
        ("2027-03-28T02:30", "2027-03-28T14:00", BERLIN, "2027-03-28T02:30:00 does not exist in Europe/Berlin"),
        ("1026-11-10T12:00", "2026-11-10T14:00", BERLIN, "from 1980 to 2099"),
    ],
)
def test_days_that_cannot_be_are_refused(begin: str, end: str, tz: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        lapse(begin, end, tz=tz)


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="'tomorrow' is no date and time; write it as 2026-10-24T12:00"):
        moment("tomorrow")


@pytest.mark.parametrize(
    ("begin", "taken"),
    [("2026-10-25T02:30", "2026-10-25T02:30:00+02:00"), ("2026-10-25T02:30+01:00", "2026-10-25T02:30:00+01:00")],
)
def test_a_time_that_comes_twice_is_the_first_unless_it_has_an_offset(begin: str, taken: str) -> None:
    assert lapse(begin).span(BERLIN)[0].isoformat() == taken


def test_without_a_zone_nothing_is_said_of_the_order_before_the_app_was_asked() -> None:
    plan = lapse("2026-11-10T14:00", "2026-11-10T12:00", tz=None)
    with pytest.raises(UsageError, match="has to be later"):
        plan.span("UTC")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "0"], "a speed of 0 cannot be"),
        (["--speed", "nan"], "a speed of nan cannot be"),
        (["--tz", "Mars/Olympus"], "no time zone"),
        (["--from", "soon"], "'soon' is no date"),
        (["--to", "2026-11-10T11:00", "--tz", "UTC"], "has to be later"),
        (["--app-dir", "nowhere"], "is no folder"),
    ],
)
@pytest.mark.usefixtures("_no_session")
def test_bad_options_end_with_2_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    command = ["harness", "timelapse", "shop.app", "--from", "2026-11-10T12:00", "--to", "2026-11-10T14:00", *options]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""


@pytest.fixture
def _no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("harness.stack.shared_parts.SharedParts.start", start)


# ------------------------------------------------------------------------------------------------ what beat is asked


@dataclass
class FakeBeat:
    """Stands for the container."""

    up: bool = True

    def is_up(self) -> bool:
        return self.up

    def last_lines(self, _count: int) -> str:
        return "its last words"


@dataclass
class World:
    """Stands for session and stack: beat's journal is written when it is added."""

    late_s: float = 0.0
    """Real seconds that beat takes to be ready."""
    entries: tuple[str, ...] = ("it", "celery.backend_cleanup")
    scheduler: str = "celery.beat.PersistentScheduler"
    lives: bool = True
    shifted: bool = True
    said: list[str] = field(default_factory=list)
    asked: list[tuple[FastClock | None, dict[str, Any]]] = field(default_factory=list)
    now_s: float = 0.0
    shown: list[tuple[datetime, float]] = field(default_factory=list)

    def told(self, now: datetime, over: float) -> None:
        self.shown.append((now, over))

    def start(self) -> None:
        pass

    def say(self, line: str) -> None:
        self.said.append(line)

    @contextmanager
    def stack(self, _session: Any, _spec: Any, folder: RunFolder, about: Any = None) -> Iterator["World"]:
        settings = {"name": "lapse", "promise": Promise().to_json(), "nodes": ["beat-1"], **(about or {})}
        folder.write("run.json", settings)
        self.folder = folder
        yield self

    def add_beat(self, clock: FastClock | None = None, settings: dict[str, Any] | None = None) -> FakeBeat:
        self.asked.append((clock, settings or {}))
        ready_t = time.time() if clock is None or not self.shifted else clock.start_t + 1.0
        if clock is not None and self.shifted:
            ready_t += self.late_s * clock.speed
            self.now_s += self.late_s
        rule = {"name": "tick", "kind": "interval", "every_s": 600.0, "relative": False}
        schedule = [{"entry": entry, **rule} for entry in self.entries]
        lines: list[dict[str, Any]] = [
            {"kind": "opened", "node": "beat-1", "pid": 1, "role": "beat"},
            {"kind": "settings", "timezone": BERLIN, "scheduler": self.scheduler, "schedule": schedule},
            {"kind": "ready", "at": ready_t},
        ]
        for number in range(1, 500 if self.lives else 3):
            at = ready_t + 600.0 * number
            for entry in self.entries:
                task = f"{entry}-{number}"
                lines.append({"kind": "intended", "task": task, "entry": entry, "at": at})
                lines.append({"kind": "accepted", "task": task})
            lines.append({"kind": "woke", "at": at, "took_s": 0.0, "next": at + 600.0})
        text = "".join(json.dumps({"n": n, "t": 0.0, **line}) + "\n" for n, line in enumerate(lines))
        (self.folder.journal / "beat-1.1.1.jsonl").write_text(text)
        return FakeBeat(up=self.lives)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Lives through a time-lapse in a world."""

    def live(world: World, **options: Any) -> Any:
        monkeypatch.setattr(timelapse, "Stack", world.stack)
        monkeypatch.setattr(timelapse, "REAL", Clock(now=lambda: world.now_s))
        return execute(world, lapse(root=tmp_path, **options), world.told)  # type: ignore[arg-type]

    return live


def test_beat_runs_with_a_fast_clock_that_begins_before_the_days_and_says_so_in_the_folder(
    live: Callable[..., Any],
) -> None:
    world = World()
    folder, audited = live(world, speed=1000.0)
    ((clock, settings),) = world.asked
    assert clock == FastClock(start_t=moment("2026-11-10T12:00+01:00").timestamp() - 6_000, speed=1000.0)
    assert settings == {"broker_connection_timeout": 30_000.0, "timezone": BERLIN}
    assert folder.read("run.json")["timelapse"] == {
        "from": "2026-11-10T12:00:00+01:00",
        "from_t": 1794308400.0,
        "to": "2026-11-10T14:00:00+01:00",
        "to_t": 1794315600.0,
        "tz": BERLIN,
        "speed": 1000.0,
    }
    assert audited.verdict is Verdict.PASS, audited.text()
    assert [(entry.entry, entry.expected) for entry in audited.ticks] == [("celery.backend_cleanup", 12), ("it", 12)]
    assert folder.read("audit.json") == audited.to_json()
    assert world.shown[-1] == (moment("2026-11-13T21:30:01+01:00"), 1.0)


def test_without_a_zone_the_app_is_asked_for_its_own_and_keeps_it(live: Callable[..., Any]) -> None:
    world = World()
    folder, _ = live(world, tz=None)
    assert [clock is None for clock, _ in world.asked] == [True, False]
    assert "timezone" not in world.asked[1][1]
    assert folder.read("run.json")["timelapse"]["tz"] == BERLIN


def test_a_socket_is_given_no_longer_timeout_than_it_takes(live: Callable[..., Any]) -> None:
    world = World(lives=False)
    with pytest.raises(StartError):
        live(world, speed=1e6)
    assert world.asked[0][1]["broker_connection_timeout"] * 1000 < 2**31


def test_a_beat_that_was_late_gets_a_longer_lead_once(live: Callable[..., Any], tmp_path: Path) -> None:
    world = World(late_s=8.0)
    folder, audited = live(world)
    assert len(world.asked) == 2
    first, second = (clock.start_t for clock, _ in world.asked if clock)
    assert first - second == timedelta(seconds=12 * 1800).total_seconds()
    assert any("not ready in time" in line for line in world.said)
    assert audited.verdict is Verdict.PASS, audited.text()
    assert [path for path in tmp_path.iterdir() if path.name != "latest"] == [folder.path]


def test_a_beat_that_is_late_again_is_an_error(live: Callable[..., Any]) -> None:
    world = World(late_s=30.0)
    with pytest.raises(StartError, match="not ready 18 s after its start"):
        live(world)
    assert len(world.asked) == 2


def test_a_beat_that_dies_is_an_error_with_its_last_words(live: Callable[..., Any]) -> None:
    with pytest.raises(StartError, match=r"(?s)beat ended on 2026-11-10T09:20:01\+01:00.*its last words"):
        live(World(lives=False))


def test_a_clock_that_is_not_shifted_is_an_error_that_names_the_library(live: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"not shifted.*libfaketime"):
        live(World(shifted=False), begin="2030-11-10T12:00", end="2030-11-10T14:00")


@pytest.mark.parametrize(
    ("entries", "said"), [((), "nothing at all"), (("celery.backend_cleanup",), "nothing but Celery's own")]
)
@pytest.mark.parametrize("tz", [None, BERLIN])
def test_an_app_without_a_schedule_is_an_error_that_names_the_setting(
    live: Callable[..., Any], entries: tuple[str, ...], said: str, tz: str | None
) -> None:
    with pytest.raises(UsageError, match=rf"{said}.*`beat_schedule`"):
        live(World(entries=entries), tz=tz)


def test_a_scheduler_of_another_kind_may_come_to_have_a_schedule(live: Callable[..., Any]) -> None:
    scheduler = "django_celery_beat.schedulers.DatabaseScheduler"
    _, audited = live(World(entries=("celery.backend_cleanup",), scheduler=scheduler))
    assert [entry.entry for entry in audited.ticks] == ["celery.backend_cleanup"]


def test_a_time_that_comes_twice_is_said_to_be_taken_for_the_first(live: Callable[..., Any]) -> None:
    world = World()
    live(world, begin="2026-10-25T02:30", end="2026-10-25T06:00")
    assert world.said[:1] == [
        "--from comes twice in Europe/Berlin; it is taken for the first, 2026-10-25T02:30:00+02:00"
    ]


@pytest.mark.parametrize(
    ("end", "speed", "takes"),
    [
        ("2026-11-10T14:00", 1800.0, "10 s"),
        ("2026-11-10T14:00", 10.0, "12 min"),
        ("2027-11-10T12:00", 2880.0, "3 h"),
        ("2027-11-10T12:00", 1.0, "365 days"),
    ],
)
def test_how_long_it_takes_is_said_before_beat_is_started(
    live: Callable[..., Any], end: str, speed: float, takes: str
) -> None:
    world = World(lives=False)
    with pytest.raises(StartError):
        live(world, end=end, speed=speed)
    zoned = moment(f"{end}+01:00").isoformat()
    assert world.said == [f"beat lives from 2026-11-10T12:00:00+01:00 to {zoned}, which takes about {takes}"]


def test_a_fast_clock_says_how_fast_it_is() -> None:
    env = FastClock(start_t=moment("2026-11-10T12:00+00:00").timestamp(), speed=2880.0).env()
    assert env["FAKETIME"] == "@2026-11-10 12:00:00 x2880"
    assert float(env["HARNESS_CLOCK_SPEED"]) == 2880.0
