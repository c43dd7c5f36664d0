"""A time-lapse: beat runs through some days in seconds, with the app's own schedule. It leaves a run folder."""

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from harness.audit.audit import Audit, audit
from harness.audit.beat.beat_history import Wake
from harness.audit.run_folder import RunFolder
from harness.containers.beat import Beat, FastClock
from harness.errors import StartError, UsageError, WaitTimeout
from harness.records import journal
from harness.records.event import Event, Kind, Ready, Settings, Woke
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import REAL, wait_until

if TYPE_CHECKING:
    from harness.records.values import Json

Progress = Callable[[datetime, float], None]
"""Receives the time that beat's clock shows, and the share of the days that is over, from 0 to 1."""

_LEAD_S = 6.0
"""Real seconds from the start of beat until its clock shows the first of the days; idle machines need two. With less,
more runs begin twice; with more, every run takes longer."""
_LONGER_RATIO = 3.0
"""The ratio of the time before the second attempt to that before the first. A busy machine needs more time, and there
is no third attempt."""
_AFTER_S = 60.0
"""Seconds of beat's clock after the last of the days, within which a tick of these days is on time: a crontab entry
names a minute."""
_SLACK_S = 30.0
"""Real seconds that are added to the time limit of a run, for what does not depend on the speed, such as a connection
to the broker. Less would end slow runs as failed; more would delay the error if beat hangs."""
_OVERTIME_RATIO = 1.5
"""The time limit of a run, as a ratio to the time that it takes by beat's clock. A clock under load does not run
slower, but beat wakes later. A smaller ratio would end such runs as failed; a larger one would delay the error if beat
hangs."""
_NAP_S = 600.0
"""The longest pause of beat that a run waits for, in seconds of beat's clock. Beat wakes at least every 300 s, unless
the app sets another interval."""
_NETWORK_S = 30.0
"""Real seconds that a connection to the broker may take. Less would end runs on a busy machine; more would delay the
error if the broker does not answer."""
_LONGEST_TIMEOUT_S = 2_000_000.0
"""The longest time-out, in seconds, that a socket accepts: it counts milliseconds in 32 bits."""
_CLOCK_SLACK_S = 1.0
"""The seconds, real ones and of beat's clock, by which beat's clock may be ahead of what the real time allows. A clock
that is not shifted is outside, unless the days begin now. A smaller slack would refuse a shifted clock for its rounding
to whole seconds."""
_PROBE_S = 1.0
"""Real seconds between two checks whether beat runs. The engine's answer costs more than reading the journal. A longer
time would report the death of beat later."""
_LOOK_INTERVAL_S = 0.1
"""Real seconds between two looks at beat's journal. A longer interval would show the progress in larger steps."""
_YEARS = range(1980, 2100)
"""The years of a time-lapse. A fast clock begins long before the first day, and must not begin before 1970. A year
outside is taken for a typing error."""
_FASTEST_SPEED = 1_000_000.0
"""The highest speed of a clock, as a multiple of the real one. No machine reaches a hundredth of it; a much faster
clock would begin before 1970."""
_LOG_LINES = 20
"""The last lines of beat's log that an error shows. Fewer would cut off a traceback; more would hide the error
itself."""
_BUILT_IN = "celery.backend_cleanup"
_CELERYS = "celery.beat."


@dataclass(frozen=True, kw_only=True)
class Lapse:
    """The settings of a time-lapse."""

    stack: StackSpec
    """The app, its folder and its environment; workers have nothing to do here."""
    begin: datetime
    """The first moment that counts; without a zone, it is in that of `tz`."""
    end: datetime
    """The first moment that no longer counts; its zone is as for `begin`."""
    tz: str | None = None
    """The zone of `begin` and `end`, and beat's setting `timezone`; None for the app's own."""
    speed: float = 2880.0
    """The speed of beat's clock as a multiple of the real one; by default a day takes half a minute."""
    root: Path
    """The folder in which the run folder is created."""

    def __post_init__(self) -> None:
        """Refuse a speed or a time out of range, and an invalid zone. Raises UsageError."""
        if not 0 < self.speed <= _FASTEST_SPEED:
            most = f"{_FASTEST_SPEED:,.0f}"
            raise UsageError(f"a speed of {self.speed:g} cannot be: give a number above 0, up to {most}, such as 2880.")
        for moment in (self.begin, self.end):
            if moment.year not in _YEARS:
                raise UsageError(f"{moment.isoformat()} is too far away: give a year from 1980 to 2099.")
        if self.tz is not None:
            self.span(self.tz)

    def span(self, tz: str) -> tuple[datetime, datetime]:
        """Return begin and end in a zone.

        Raises:
            UsageError: there is no such zone, no such time in it, or the end is not later than the begin.
        """
        zone = _zone(tz)
        begin, end = _in_zone(self.begin, zone), _in_zone(self.end, zone)
        if not begin.timestamp() < end.timestamp():
            raise UsageError(f"--to ({end.isoformat()}) has to be later than --from ({begin.isoformat()}).")
        return begin, end


def moment(text: str) -> datetime:
    """Parse a time such as 2026-10-24T12:00, with an offset or without. Raises UsageError."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no date and time; write it as 2026-10-24T12:00.") from error


def _zone(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"there is no time zone {tz!r}; write it as Europe/Berlin or UTC.") from error


def _in_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    if moment.tzinfo is not None:
        return moment.astimezone(zone)
    local = moment.replace(tzinfo=zone)
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
        raise UsageError(f"{moment.isoformat()} does not exist in {zone.key}: the clock is put forward over it.")
    return local


def execute(session: SharedParts, lapse: Lapse, progress: Progress = lambda *_: None) -> tuple[RunFolder, Audit]:
    """Run beat through the days, and return the run folder and the audit.

    Raises:
        UsageError: the app has no schedule, or beat's clock is not shifted.
        StartError: beat cannot be started, is twice not ready in time, or died; the message ends with its last log
            lines.
        WaitTimeout: its clock does not reach the end of the days.
    """
    session.start()
    tz = lapse.tz or _timezone_of(session, lapse)
    begin, end = lapse.span(tz)
    for option, shown in (("--from", begin), ("--to", end)):
        if _is_twice(shown):
            which = "second" if shown.fold else "first"
            session.say(f"{option} comes twice in {tz}; it is taken for the {which}, {shown.isoformat()}")
    lead_s = _LEAD_S
    takes_s = lead_s + (end.timestamp() - begin.timestamp() + _AFTER_S) / lapse.speed
    session.say(f"beat lives from {begin.isoformat()} to {end.isoformat()}, which takes about {_rough(takes_s)}")
    for attempt in (1, 2):
        folder = RunFolder.create(lapse.root, f"timelapse-{_slug(lapse.stack.app)}")
        running = _Running(session=session, lapse=lapse, tz=tz, begin=begin, end=end, lead_s=lead_s, progress=progress)
        if running.go(folder):
            break
        if attempt == 2:  # noqa: PLR2004 - the second attempt is the last.
            raise StartError(
                f"beat was not ready {lead_s:.0f} s after its start, twice, so that its clock was past --from: "
                f"is the machine busy? A lower --speed gives it no more time; see {folder.path} for what it said."
            )
        lead_s *= _LONGER_RATIO
        session.say(f"beat was not ready in time; again, with {lead_s:.0f} s before --from")
        shutil.rmtree(folder.path)
    audited = audit(folder)
    folder.write("audit.json", audited.to_json())
    return folder, audited


def _is_twice(moment: datetime) -> bool:
    return moment.utcoffset() != moment.replace(fold=1 - moment.fold).utcoffset()


def _rough(s: float) -> str:
    """Return a rough duration as text."""
    for unit_s, unit in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if s >= 2 * unit_s:
            return f"{s / unit_s:.0f} {unit}"
    return f"{s:.0f} s"


def _slug(app: str) -> str:
    return re.sub(r"\W+", "-", app).strip("-") or "app"


def _timezone_of(session: SharedParts, lapse: Lapse) -> str:
    """Return the time zone that the app is set to, by starting beat once under the real clock."""
    session.say("asking the app for its time zone")
    with tempfile.TemporaryDirectory(prefix="celery-harness-") as root:
        folder = RunFolder.create(Path(root), "zone")
        with Stack(session, lapse.stack, folder) as stack:
            stack.add_beat()
        return _schedule(folder, lapse)["timezone"]


def _schedule(folder: RunFolder, lapse: Lapse) -> Settings:
    """Return the settings that beat journaled. Raises UsageError if it has nothing to send, and will have nothing."""
    said = next(event for event in journal.read(folder.journal) if event.kind is Kind.SETTINGS).of(Settings)
    entries = [str(entry["entry"]) for entry in said["schedule"]]
    # Another scheduler may load its entries shortly before they are due.
    is_celerys = str(said.get("scheduler", _CELERYS)).startswith(_CELERYS)
    if is_celerys and set(entries) <= {_BUILT_IN}:
        only = f"nothing but Celery's own {_BUILT_IN}" if entries else "nothing at all"
        raise UsageError(f"beat has {only} to send for {lapse.stack.app}: set `beat_schedule` in the app.")
    return said


@dataclass(frozen=True, kw_only=True)
class _Running:
    """One attempt at a time-lapse."""

    session: SharedParts
    lapse: Lapse
    tz: str
    begin: datetime
    end: datetime
    lead_s: float
    progress: Progress

    def go(self, folder: RunFolder) -> bool:
        """Run beat through the days; return False if it was not ready before they began.

        Raises:
            UsageError: beat's clock is not shifted, or it has nothing to send.
            StartError: beat cannot be started, or died.
            WaitTimeout: its clock does not reach the end of the days.
        """
        speed = self.lapse.speed
        about: dict[str, Json] = {
            "timelapse": {
                "from": self.begin.isoformat(),
                "from_t": self.begin.timestamp(),
                "to": self.end.isoformat(),
                "to_t": self.end.timestamp(),
                "tz": self.tz,
                "speed": speed,
            }
        }
        start_t = math.floor(self.begin.timestamp() - self.lead_s * speed)
        settings: dict[str, Json] = {
            # Time-outs are by beat's clock, and the network is not faster for it.
            "broker_connection_timeout": min(_NETWORK_S * speed, _LONGEST_TIMEOUT_S),
        }
        if self.lapse.tz is not None:
            settings["timezone"] = self.tz
        with Stack(self.session, self.lapse.stack, folder, about=about) as stack:
            began_s = REAL.now()
            beat = stack.add_beat(clock=FastClock(start_t=start_t, speed=speed), settings=settings)
            _schedule(folder, self.lapse)
            ready_t = _ready_t(folder)
            took_s = REAL.now() - began_s
            if not start_t <= ready_t <= start_t + (took_s + _CLOCK_SLACK_S) * speed + _CLOCK_SLACK_S:
                raise UsageError(
                    f"beat's clock shows {datetime.fromtimestamp(ready_t, UTC).isoformat(timespec='seconds')}, so it "
                    "is not shifted: the image in HARNESS_WORKER_IMAGE needs libfaketime, as the harness's own has it."
                )
            if ready_t > self.begin.timestamp():
                return False
            self._wait(beat, folder, ready_t)
        return True

    def _wait(self, beat: Beat, folder: RunFolder, ready_t: float) -> None:
        """Wait until a wake shows that beat's clock is past the days. Raises StartError or WaitTimeout."""
        follower = journal.Follower(folder.journal)
        until_t = self.end.timestamp() + _AFTER_S
        asked = _Rarely(_PROBE_S)
        now_t = ready_t

        def over() -> bool:
            nonlocal now_t
            now_t = _latest(follower.read(), now_t)
            self._tell(now_t)
            if asked.again() and not beat.is_up():
                said = beat.last_lines(_LOG_LINES)
                raise StartError(f"beat ended on {self._shown(now_t)} of its clock. Its last log lines:\n{said}")
            return now_t > until_t

        limit_s = _OVERTIME_RATIO * (until_t - ready_t + _NAP_S) / self.lapse.speed + _SLACK_S
        try:
            wait_until(over, what="beat's clock is past --to", timeout_s=limit_s, interval_s=_LOOK_INTERVAL_S)
        except WaitTimeout as error:
            raise WaitTimeout(
                f"{error} It last woke on {self._shown(now_t)}. Its last log lines:\n{beat.last_lines(_LOG_LINES)}"
            ) from None

    def _tell(self, now_t: float) -> None:
        begin_t, end_t = self.begin.timestamp(), self.end.timestamp()
        over = min(max((now_t - begin_t) / (end_t - begin_t), 0.0), 1.0)
        self.progress(datetime.fromtimestamp(now_t, self.begin.tzinfo), over)

    def _shown(self, t: float) -> str:
        return datetime.fromtimestamp(t, self.begin.tzinfo).isoformat(timespec="seconds")


@dataclass
class _Rarely:
    """A rate limit for queries to the engine, which cost more than reading a file."""

    every_s: float
    _next_s: float = 0.0

    def again(self) -> bool:
        """Return whether it is time for the next query."""
        if REAL.now() < self._next_s:
            return False
        self._next_s = REAL.now() + self.every_s
        return True


def _ready_t(folder: RunFolder) -> float:
    ready = next(event for event in journal.read(folder.journal) if event.kind is Kind.READY)
    return float(ready.of(Ready)["at"])


def _latest(events: Sequence[Event], now_t: float) -> float:
    """Return the last time at which beat had nothing left to send, and slept."""
    for event in events:
        if event.kind is not Kind.WOKE:
            continue
        wake = Wake.of(event.of(Woke))
        # A wake after which beat did not sleep may have left something to send.
        if wake.slept:
            now_t = max(now_t, wake.at)
    return now_t
