"""Beat: the real `celery beat` of a user's app, under the agent, with the real clock or a faked one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from harness.containers.app_node import RUN_INSIDE, AppNode, JournalingNode, overriding
from harness.containers.engine import Engine
from harness.errors import UsageError
from harness.records.event import Kind
from harness.records.values import Json

_LIBRARY = "/opt/faketime/libfaketime.so.1"


@dataclass(frozen=True, kw_only=True)
class ShiftedClock:
    """A clock that is `offset_s` seconds ahead of the real one, at the same speed. The journal has the real time."""

    offset_s: float

    def env(self) -> dict[str, str]:
        """Return the environment that gives a process this clock."""
        return {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME": f"{self.offset_s:+.6f}s",
            "HARNESS_CLOCK_OFFSET_S": repr(self.offset_s),
        }


@dataclass(frozen=True, kw_only=True)
class FastClock:
    """A clock that shows `start_t` when the process begins, and from then on runs `speed` times as fast.

    Waits and time-outs get shorter by the same factor. The journal has the time of this clock.
    """

    start_t: float
    """The time that it shows first, Unix time in seconds."""
    speed: float

    def __post_init__(self) -> None:
        """Raise UsageError for a clock that stands still or runs backwards."""
        if not self.speed > 0:
            raise UsageError(f"a clock of speed {self.speed:g} does not run; give a number above 0.")

    def env(self) -> dict[str, str]:
        """Return the environment that gives a process this clock."""
        start = datetime.fromtimestamp(self.start_t, UTC).strftime("%Y-%m-%d %H:%M:%S")
        # The library takes the start for local time.
        return {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME": f"@{start} x{self.speed:g}",
            "TZ": "UTC",
            "HARNESS_CLOCK_SPEED": repr(self.speed),
        }


class Beat(JournalingNode):
    """`celery beat`, ready when its scheduler is. Its schedule file is in the run folder and survives a restart."""

    def __init__(
        self,
        engine: Engine,
        app: AppNode,
        *,
        name: str,
        clock: ShiftedClock | FastClock | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> None:
        """Create the node without starting it, and make the folder of schedule files.

        Args:
            engine: runs it.
            app: the app's settings; for a faked clock, libfaketime has to be in the image.
            name: the node's name, unique within its stack.
            clock: None for the real one.
            settings: Celery settings that override the app's own, such as `timezone`.

        Raises:
            UsageError: the settings are not JSON.
        """
        (app.run_folder / "beat").mkdir(exist_ok=True)
        own = {} if clock is None else clock.env()
        own |= overriding(settings or {})
        command = ("-A", app.app, "beat", f"--schedule={RUN_INSIDE}/beat/{name}", "--loglevel=info")
        # The agent writes this line when the scheduler is there.
        super().__init__(engine, app.spec(name, command, env=own), app, ready=Kind.READY)
        self._of_twin = partial(Beat, engine, app, clock=clock, settings=settings)

    def twin(self, name: str) -> "Beat":
        """Return another beat for the same schedule, with a schedule file of its own, without starting it."""
        return self._of_twin(name=name)
