"""What is journaled of beat: Celery's own schedulers and such as others have, and schedules of every kind."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.app import defaults
from celery.beat import ScheduleEntry, Scheduler, SchedulingError, Service
from celery.schedules import BaseSchedule, crontab, schedstate, schedule

from harness.inside.beat_watch import BeatWatch
from harness.records import journal
from harness.records.journal import Writer
from harness.records.moment import Moment

Lines = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    with closing(Writer(folder, node="beat-1", role="beat")) as writer:
        yield writer


@pytest.fixture
def watch(writer: Writer) -> BeatWatch:
    return BeatWatch(writer)


@pytest.fixture
def _prepared(watch: BeatWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's classes are as they were once the test is over."""
    monkeypatch.setattr(Service, "start", Service.start)
    monkeypatch.setattr(Celery, "add_periodic_task", Celery.add_periodic_task)
    monkeypatch.setattr(Celery, "_add_periodic_task", vars(Celery)["_add_periodic_task"])
    monkeypatch.setitem(defaults.DEFAULTS, "beat_schedule_filename", defaults.DEFAULTS["beat_schedule_filename"])
    watch.prepare()


def shop(**settings: Any) -> Celery:
    """Return an app whose broker is in memory."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(timezone="Europe/Stockholm", **settings)
    return app


@pytest.fixture
def app() -> Iterator[Celery]:
    with closing(shop()) as app:
        yield app


def begin(watch: BeatWatch, app: Celery, cls: type[Scheduler] = Scheduler) -> Any:
    """Celery's own way to begin; the scheduler."""
    service = Service(app, scheduler_cls=cls)
    watch.begin(service, confirm_publish=True, says_ready=True)
    return service.scheduler


def said(folder: Path, kind: str | None = None) -> Lines:
    lines = [(event.kind.value, dict(event.data)) for event in journal.read(folder)]
    return [(one, data) for one, data in lines if one != "opened" and kind in {one, None}]


def rules(watch: BeatWatch, app: Celery, folder: Path, **schedules: Any) -> dict[str, dict[str, Any]]:
    """Return the rules that the journal has of entries with these schedules."""
    app.conf.beat_schedule = {name: {"task": "pay", "schedule": one} for name, one in schedules.items()}
    begin(watch, app)
    return {rule["entry"]: rule for rule in said(folder, "settings")[0][1]["schedule"]}


# ------------------------------------------------------------------------------------------------------- the schedule


def test_beat_says_what_it_runs_with_and_that_it_is_ready(watch: BeatWatch, app: Celery, folder: Path) -> None:
    nightly = crontab(minute="*/20", hour=[2, 3], day_of_week="mon-fri")
    schedules = rules(watch, app, folder, nightly=nightly, often=30)
    (_, settings), (ready, at) = said(folder)
    assert {name: settings[name] for name in ("confirm_publish", "timezone", "scheduler", "shadowed")} == {
        "confirm_publish": True,
        "timezone": "Europe/Stockholm",
        "scheduler": "celery.beat.Scheduler",
        "shadowed": [],
    }
    assert schedules["often"] == {
        "entry": "often",
        "name": "pay",
        "kind": "interval",
        "every_s": 30.0,
        "relative": False,
    }
    assert schedules["nightly"] == {
        "entry": "nightly",
        "name": "pay",
        "kind": "crontab",
        "minute": "*/20",
        "hour": "2,3",
        "day_of_month": "*",
        "month_of_year": "*",
        "day_of_week": "mon-fri",
        "timezone": "Europe/Stockholm",
    }
    assert ready == "ready"
    assert settings["at"] <= at["at"] <= time.time()


def test_a_worker_says_for_itself_when_it_is_ready(watch: BeatWatch, app: Celery, folder: Path) -> None:
    watch.begin(Service(app, scheduler_cls=Scheduler), confirm_publish=False, says_ready=False)
    assert [kind for kind, _ in said(folder)] == ["settings"]


def test_a_crontab_says_how_late_the_app_still_wants_it(watch: BeatWatch, app: Celery, folder: Path) -> None:
    app.conf.beat_cron_starting_deadline = 60
    found = rules(watch, app, folder, hourly=crontab(minute=0), often=30)
    assert found["hourly"]["deadline_s"] == 60
    assert "deadline_s" not in found["often"]


class Tokyo(crontab):  # type: ignore[misc]  # Celery has no types.
    """Differs in its zone, and in how it is shown."""

    tz = ZoneInfo("Asia/Tokyo")

    def now(self) -> datetime:
        return datetime.now(self.tz)

    def __repr__(self) -> str:
        return "in Tokyo"


class Minutes(schedule):  # type: ignore[misc]
    """Differs in how it is made."""

    def __init__(self, minutes: int, **options: Any) -> None:  # noqa: D107 - the class says it.
        super().__init__(timedelta(minutes=minutes), **options)


class Seconds(crontab):  # type: ignore[misc]
    """Is due at other times."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(is_due=False, next=(datetime.now(UTC) - last_run_at).total_seconds())


class Halved(schedule):  # type: ignore[misc]
    """The same, of an interval."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        left: timedelta = super().remaining_estimate(last_run_at)
        return left / 2


class Alternating(crontab):  # type: ignore[misc]
    """Has hours of its own."""

    @property
    def hour(self) -> set[int]:
        return {1}

    @hour.setter
    def hour(self, _: set[int]) -> None:
        """Ignore the value."""


class Evenings(crontab):  # type: ignore[misc]
    """Changes its hours after it was made."""

    def __init__(self, **options: Any) -> None:  # noqa: D107 - the class says it.
        super().__init__(**options)
        self.hour = {20, 21}


class Sunset(BaseSchedule):  # type: ignore[misc]
    """No kind of Celery's own."""

    def is_due(self, _: datetime) -> schedstate:
        return schedstate(is_due=False, next=60.0)

    def __repr__(self) -> str:
        return """at
            sunset"""


class Fanciful(crontab):  # type: ignore[misc]
    """Cannot say what it means."""

    def __init__(self, **options: Any) -> None:  # noqa: D107 - the class says it.
        super().__init__(**options)
        self._orig_hour = "never"


def hours_ahead() -> datetime:
    return datetime.now(UTC) + timedelta(hours=5)


def in_new_york() -> datetime:
    return datetime.now(ZoneInfo("America/New_York"))


def with_own_answer() -> crontab:
    odd = crontab(minute=0)
    odd.is_due = lambda _: schedstate(is_due=False, next=60.0)
    return odd


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Tokyo(minute=0), ("timezone", "Asia/Tokyo")),
        (lambda: crontab(minute=0, nowfun=in_new_york), ("timezone", "Europe/Stockholm")),
        (lambda: Minutes(5), ("every_s", 300.0)),
        (lambda: schedule(60, relative=True), ("relative", True)),
    ],
)
def test_a_schedule_that_is_celerys_but_for_its_zone_or_its_name_is_taken_for_celerys(
    watch: BeatWatch, app: Celery, folder: Path, make: Callable[[], Any], part: tuple[str, Any]
) -> None:
    assert part in rules(watch, app, folder, it=make())["it"].items()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Seconds(minute=0), "<crontab: 0 * * * * (m/h/dM/MY/d)>, of Seconds with its own is_due"),
        (lambda: Halved(60), "<freq: 1.00 minute>, of Halved with its own remaining_estimate"),
        (Alternating, "<crontab: * * * * * (m/h/dM/MY/d)>, of Alternating with its own hour"),
        (lambda: Evenings(hour=8), "<crontab: * 8 * * * (m/h/dM/MY/d)>, of Evenings with other times than it says"),
        (with_own_answer, "<crontab: 0 * * * * (m/h/dM/MY/d)>, of crontab with its own is_due"),
        (lambda: crontab(nowfun=hours_ahead), "<crontab: * * * * * (m/h/dM/MY/d)>, with a clock of its own"),
        (Sunset, "at sunset"),
        (Fanciful, "<crontab: * never * * * (m/h/dM/MY/d)>, which cannot be asked: "),
    ],
)
def test_a_schedule_that_decides_in_its_own_way_is_not_taken_for_celerys(
    watch: BeatWatch, app: Celery, folder: Path, make: Callable[[], Any], text: str
) -> None:
    rule = rules(watch, app, folder, it=make())["it"]
    assert rule["kind"] == "other"
    assert rule["text"].startswith(text)


def model_entry(**limits: Any) -> type[ScheduleEntry]:
    """Return an entry class as django-celery-beat has it."""
    model = SimpleNamespace(**({"start_time": None, "expires": None, "one_off": False} | limits))
    cls = type("ModelEntry", (ScheduleEntry,), {"is_due": ScheduleEntry.is_due, "model": model})
    cls.__module__ = "django_celery_beat.schedulers"
    return cls


class Lazy(ScheduleEntry):  # type: ignore[misc]
    """Decides for itself."""

    def is_due(self) -> schedstate:
        return schedstate(is_due=False, next=60.0)


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (model_entry(), None),
        (model_entry(one_off=True), ", of an entry with one_off"),
        (model_entry(start_time=datetime.now(UTC), expires=datetime.now(UTC)), "with start_time, expires"),
        (Lazy, ", of an entry of Lazy with its own is_due"),
        (type("Named", (ScheduleEntry,), {"__repr__": lambda _: "it"}), None),
    ],
)
def test_an_entry_that_decides_in_its_own_way_is_not_taken_for_celerys(
    watch: BeatWatch, app: Celery, folder: Path, entry: type[ScheduleEntry], end: str | None
) -> None:
    app.conf.beat_schedule = {"it": {"task": "pay", "schedule": 60.0}}
    begin(watch, app, type("Own", (Scheduler,), {"Entry": entry}))
    rule = next(rule for rule in said(folder)[0][1]["schedule"] if rule["entry"] == "it")
    assert rule["kind"] == ("interval" if end is None else "other")
    assert rule.get("text", "").endswith(end or "")


def test_the_crontab_of_django_celery_beat_is_celerys_in_a_zone(watch: BeatWatch, app: Celery, folder: Path) -> None:
    cls = type("TzAwareCrontab", (crontab,), {"is_due": crontab.is_due, "tz": ZoneInfo("Asia/Tokyo")})
    cls.__module__ = "django_celery_beat.tzcrontab"
    rule = rules(watch, app, folder, it=cls(minute=0))["it"]
    assert (rule["kind"], rule["timezone"]) == ("crontab", "Asia/Tokyo")


# ----------------------------------------------------------------------------------------------- a changed schedule


def test_a_schedule_that_stays_as_it_is_is_said_once(watch: BeatWatch, app: Celery, folder: Path) -> None:
    app.conf.beat_schedule = {"now": {"task": "pay", "schedule": 0.0}, "later": {"task": "pay", "schedule": 600.0}}
    scheduler = begin(watch, app)
    for _ in range(3):
        scheduler.tick()
    # The very same rule is no change.
    scheduler.schedule["later"] = Scheduler.Entry(name="later", task="pay", schedule=600.0, app=app)
    scheduler.tick()
    assert said(folder, "schedule") == []


@pytest.mark.parametrize("how", ["added", "removed", "replaced", "changed in place", "emptied"])
def test_a_changed_schedule_is_said_again_before_anything_of_it_is_sent(
    watch: BeatWatch, app: Celery, folder: Path, how: str
) -> None:
    app.conf.beat_schedule = {name: {"task": "pay", "schedule": 600.0} for name in ("one", "two")}
    scheduler = begin(watch, app)
    scheduler.tick()
    if how == "added":
        scheduler.add(name="three", task="pay", schedule=0.0)
    elif how == "removed":
        del scheduler.schedule["two"]
    elif how == "replaced":
        scheduler.add(name="two", task="pay", schedule=0.0)
    elif how == "emptied":
        scheduler.schedule.clear()
    else:
        scheduler.schedule["two"].schedule = schedule(300.0, app=app)
    scheduler.tick()
    (change,) = [data for _, data in said(folder, "schedule")]
    every_s = {rule["entry"]: rule.get("every_s") for rule in change["schedule"] if rule["name"] == "pay"}
    assert (
        every_s
        == {
            "added": {"one": 600.0, "two": 600.0, "three": 0.0},
            "removed": {"one": 600.0},
            "replaced": {"one": 600.0, "two": 0.0},
            "changed in place": {"one": 600.0, "two": 300.0},
            "emptied": {},
        }[how]
    )
    wakes = [data for _, data in said(folder, "woke")]
    assert change["until"] == wakes[1]["at"]
    assert change["until"] <= change["at"] <= wakes[1]["at"] + wakes[1]["took_s"] + 0.1
    kinds = [kind for kind, _ in said(folder)]
    assert how not in {"added", "replaced"} or kinds[-2:] == ["schedule", "woke"]


def test_how_long_all_entries_took_to_plan_is_said_once(watch: BeatWatch, app: Celery, folder: Path) -> None:
    scheduler = begin(watch, app)
    scheduler.tick()
    scheduler.tick()
    first, second = (data for _, data in said(folder, "woke"))
    assert 0.0 < first["planned_s"] <= first["took_s"]
    assert "planned_s" not in second


# --------------------------------------------------------------------------------------------------------- its work


def test_each_look_says_when_the_next_one_is_due(watch: BeatWatch, app: Celery, folder: Path) -> None:
    app.conf.beat_schedule = {"soon": {"task": "pay", "schedule": 60.0}}
    app.conf.result_expires = None
    begin(watch, app).tick()
    (woke,) = [data for _, data in said(folder, "woke")]
    assert woke["next"] == pytest.approx(woke["at"] + 60.0, abs=1.0)
    assert woke["next"] >= woke["at"] + woke["took_s"]


def sends(app: Celery, watch: BeatWatch, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return a list that takes what `sending` returns whenever the app sends."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(app, "send_task", lambda *_, **__: told.append(watch.sending()))
    return told


def test_a_tick_names_its_entry_and_when_the_schedule_has_the_next_one(
    watch: BeatWatch, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = sends(app, watch, monkeypatch)
    app.conf.beat_schedule = {"it": {"task": "pay", "schedule": 60.0}}
    scheduler = begin(watch, app)
    scheduler.schedule["it"].last_run_at -= timedelta(seconds=90)
    before = time.time()
    scheduler.tick()
    after = time.time()
    (one,) = told
    assert one["entry"] == "it"
    assert before <= one["at"] <= after
    assert before + 60.0 <= one["following"][0] <= one["following"][1] <= after + 60.0
    assert watch.sending() == {}


class Terse(Scheduler):  # type: ignore[misc]
    """A scheduler as others have them: it sends by itself what is due, without what Celery's own has for that."""

    apply_entry = is_due = populate_heap = None

    def tick(self, *_: Any, **__: Any) -> float:
        for entry in self.schedule.values():
            self.apply_async(entry, advance=False)
        return 5.0


def test_an_entry_is_named_also_by_a_scheduler_that_sends_in_its_own_way(
    watch: BeatWatch, app: Celery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = sends(app, watch, monkeypatch)
    app.conf.beat_schedule = {"soon": {"task": "pay", "schedule": 60}}
    app.conf.result_expires = None
    scheduler = begin(watch, app, Terse)
    scheduler.add(name="later", task="pay", schedule=30)
    assert scheduler.tick() == 5.0
    scheduler.tick()
    assert [set(one) for one in told] == [{"entry", "at"}] * 4
    assert [one["entry"] for one in told] == ["soon", "later"] * 2
    # Where it keeps the other entry, and for how long, nobody can tell.
    (change,) = [data for _, data in said(folder, "schedule")]
    assert [(rule["entry"], rule["kind"]) for rule in change["schedule"]] == [("soon", "interval"), ("later", "other")]
    assert change["schedule"][1]["text"] == "<freq: 30.00 seconds>, which Terse keeps in its own way"


def test_what_a_task_sends_while_beat_sends_in_another_thread_is_no_tick(
    watch: BeatWatch, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def send_task(*_: Any, **__: Any) -> None:
        other = threading.Thread(target=lambda: told.append(watch.sending()))
        other.start()
        other.join()

    monkeypatch.setattr(app, "send_task", send_task)
    app.conf.beat_schedule = {"it": {"task": "pay", "schedule": 60.0}}
    scheduler = begin(watch, app)
    scheduler.apply_async(scheduler.schedule["it"])
    assert told == [{}]


def test_an_entry_that_cannot_be_sent_says_why(watch: BeatWatch, app: Celery, folder: Path) -> None:
    def two(a: int, b: int) -> int:
        return a + b

    app.task(two, name="two", shared=False)
    app.conf.beat_schedule = {"sum": {"task": "two", "schedule": 0.0, "args": (1,)}}
    app.conf.result_expires = None
    scheduler = begin(watch, app)
    scheduler.tick()
    (unsent,) = [data for _, data in said(folder, "unsent")]
    assert unsent["entry"] == "sum"
    assert unsent["at"] == pytest.approx(time.time(), abs=60.0)
    assert "SchedulingError: Couldn't apply scheduled task sum: " in unsent["reason"]
    assert "missing 1 required positional argument: 'b'" in unsent["reason"]
    with pytest.raises(SchedulingError):
        scheduler.apply_async(scheduler.schedule["sum"])
    assert watch.sending() == {}


# -------------------------------------------------------------------------------------------- its begin and its end


class Short(Service):  # type: ignore[misc]
    """Ends after one look."""

    scheduler_cls = Scheduler

    def start(self, embedded_process: bool = False) -> None:  # noqa: FBT001, FBT002 - as Celery's.
        self._is_shutdown.set()
        super().start(embedded_process=embedded_process)


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("form", ["of its own", "process", "thread"])
def test_a_beat_in_a_worker_says_that_it_begins(app: Celery, folder: Path, form: str) -> None:
    service = Short(app, scheduler_cls=Scheduler)
    if form == "thread":
        thread = threading.Thread(target=service.start)
        thread.start()
        thread.join()
    else:
        service.start(embedded_process=form == "process")
    expected = [] if form == "of its own" else [("embedded", {"parent": os.getpid()})]
    assert said(folder) == expected


class Unwritable(Scheduler):  # type: ignore[misc]
    """Has no place for its schedule."""

    def setup_schedule(self) -> NoReturn:
        raise OSError(30, "Read-only file system", "celerybeat-schedule")


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("embedded", [True, False])
def test_a_beat_that_dies_says_of_what(app: Celery, folder: Path, *, embedded: bool) -> None:
    with pytest.raises(OSError, match="Read-only"):
        Service(app, scheduler_cls=Unwritable).start(embedded_process=embedded)
    kind, data = said(folder)[-1]
    assert kind == "died"
    assert data == {"error": "OSError: [Errno 30] Read-only file system: 'celerybeat-schedule'"}


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_a_workers_beat_keeps_its_schedule_where_it_can_be_written_unless_the_app_says_where(
    watch: BeatWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    monkeypatch.setattr(Service, "start", Service.start)
    watch.prepare(tmp_path / "beat" / "worker-1")
    with closing(shop(**({} if chosen is None else {"beat_schedule_filename": chosen}))) as app:
        service = Short(app, scheduler_cls=Scheduler)
        service.start(embedded_process=True)
        assert service.schedule_filename == (chosen or str(tmp_path / "beat" / "worker-1"))
        assert (tmp_path / "beat").is_dir() is (chosen is None)


# ---------------------------------------------------------------------------------------------------------- shadows


def shadows(watch: BeatWatch, app: Celery, folder: Path) -> Any:
    begin(watch, app)
    return said(folder, "settings")[0][1]["shadowed"]


@pytest.mark.usefixtures("_prepared")
@pytest.mark.parametrize("name", [None, "news"])
@pytest.mark.parametrize("configured", [True, False])
def test_a_periodic_task_that_takes_the_place_of_another_is_said(
    watch: BeatWatch, folder: Path, name: str | None, *, configured: bool
) -> None:
    with closing(Celery("shop", broker="memory://", set_as_current=False)) as app:
        if configured:
            app.conf.timezone = "UTC"
        news = app.signature("news")
        app.add_periodic_task(crontab(minute=0, hour=7), news, name=name)
        app.add_periodic_task(crontab(minute=0, hour=19), news, name=name)
        assert shadows(watch, app, folder) == [
            {
                "entry": name or "news()",
                "lost": "<crontab: 0 7 * * * (m/h/dM/MY/d)>",
                "kept": "<crontab: 0 19 * * * (m/h/dM/MY/d)>",
                "named": name is not None,
            }
        ]


@pytest.mark.usefixtures("_prepared")
def test_a_periodic_task_that_takes_no_place_of_another_is_not_said(
    watch: BeatWatch, app: Celery, folder: Path
) -> None:
    news = app.signature("news")
    keys = [
        app.add_periodic_task(60.0, news),
        app.add_periodic_task(60.0, news),
        app.add_periodic_task(60.0, news, args=(2,)),
        app.add_periodic_task(30.0, news, name="often"),
    ]
    with closing(shop()) as other:
        other.add_periodic_task(30.0, other.signature("news"))
        other.add_periodic_task(90.0, other.signature("news"))
    assert keys == ["news()", "news()", "news(2)", "often"]
    assert shadows(watch, app, folder) == []


# ------------------------------------------------------------------------------------------------------ a fast clock


@pytest.mark.parametrize(("speed", "factor"), [(100.0, 100.0), (1.0, 1.0)])
def test_a_fast_clock_gives_the_network_as_much_time_as_the_app_does(
    writer: Writer, app: Celery, speed: float, factor: float
) -> None:
    app.conf.broker_transport_options = {
        "read_timeout": 2,
        "confirm_timeout": None,
        "max_retries": 3,
        "a_timeout": True,
    }
    app.conf.task_publish_retry_policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2}
    app.conf.beat_cron_starting_deadline = 60
    begin(BeatWatch(writer, speed=speed), app)
    assert app.conf.broker_transport_options == {
        "read_timeout": 2 * factor,
        "confirm_timeout": None,
        "max_retries": 3,
        "a_timeout": True,
    }
    assert app.conf.task_publish_retry_policy == {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": pytest.approx(0.2 * factor),
    }
    assert app.conf.beat_cron_starting_deadline == 60


def test_no_socket_takes_a_time_out_of_months(writer: Writer, app: Celery) -> None:
    app.conf.broker_transport_options = {"read_timeout": 30}
    begin(BeatWatch(writer, speed=1e6), app)
    assert app.conf.broker_transport_options == {"read_timeout": 2_000_000.0}


# ------------------------------------------------------------------------------------------------- saving its schedule


class Saving(Scheduler):  # type: ignore[misc]  # Celery has no types.
    """Saves its schedule after each task, as Celery's own scheduler can be told to, and counts it."""

    sync_every_tasks = 1
    saved = 0

    def sync(self) -> None:
        """Save."""
        self.saved += 1


def saves(writer: Writer, app: Celery, cls: type[Scheduler]) -> list[tuple[Moment, tuple[str, str], int]]:
    """Return the moments at which a scheduler that sends one task saves: which, of which task, how often by then."""
    reached: list[tuple[Moment, tuple[str, str], int]] = []

    def reach(moment: Moment, task: str, name: str) -> None:
        reached.append((moment, (task, name), getattr(scheduler, "saved", 0)))

    watch = BeatWatch(writer, reach=reach)
    app.conf.update(beat_schedule={"often": {"task": "pay", "schedule": 30}}, beat_sync_every=1)
    scheduler = begin(watch, app, cls)
    apply = scheduler.send_task

    def send_task(name: str, *args: Any, **options: Any) -> Any:
        watch.note_sent("t1", name)
        return apply(name, *args, **options)

    scheduler.send_task = send_task
    scheduler.apply_async(scheduler.schedule["often"])
    watch.note_sent("t2", "not-beats")
    scheduler.close()
    return reached


def test_before_and_after_it_saves_its_schedule_beat_tells_what_it_has_sent(writer: Writer, app: Celery) -> None:
    once = [(Moment.SCHEDULE_SAVING, ("t1", "pay"), 0), (Moment.SCHEDULE_SAVED, ("t1", "pay"), 1)]
    at_its_end = [(Moment.SCHEDULE_SAVING, ("t1", "pay"), 1), (Moment.SCHEDULE_SAVED, ("t1", "pay"), 2)]
    assert saves(writer, app, Saving) == once + at_its_end


def test_a_scheduler_that_saves_nothing_reaches_no_such_moment(writer: Writer, app: Celery) -> None:
    assert saves(writer, app, Scheduler) == []
