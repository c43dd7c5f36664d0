"""Beat: the real `celery beat` of somebody's app, under the agent, and if need be under a clock of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.containers.engine import Engine
from harness.containers.worker import RUN_INSIDE, JournalingNode, agent_spec
from harness.errors import UsageError
from harness.records.values import Json

_LIBRARY = "/opt/faketime/libfaketime.so.1"


@dataclass(frozen=True, kw_only=True)
class ShiftedClock:
    """A clock that is `offset_s` seconds ahead of everybody else's, and as fast. The journal has the real time."""

    offset_s: float

    def env(self) -> dict[str, str]:
        """What makes a process live by it."""
        return {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME": f"{self.offset_s:+.6f}s",
            "HARNESS_CLOCK_OFFSET_S": repr(self.offset_s),
        }


@dataclass(frozen=True, kw_only=True)
class FastClock:
    """A clock that shows `start_t` when the process begins, and from then on runs `speed` times as fast.

    Waiting and time-outs are as much shorter. The journal has the time that this clock shows.
    """

    start_t: float
    """Unix time in seconds."""
    speed: float

    def __post_init__(self) -> None:
        """Refuse a clock that stands still or runs backwards."""
        if not self.speed > 0:
            raise UsageError(f"a clock of speed {self.speed:g} does not run; give a number above 0.")

    def env(self) -> dict[str, str]:
        """What makes a process live by it."""
        start = datetime.fromtimestamp(self.start_t, UTC).strftime("%Y-%m-%d %H:%M:%S")
        # The library takes the start for local time.
        return {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME": f"@{start} x{self.speed:g}",
            "TZ": "UTC",
            "HARNESS_CLOCK_SPEED": repr(self.speed),
        }


class Beat(JournalingNode):
    """`celery beat`, ready when its scheduler is. Its schedule file outlives a restart, and goes with the run."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        image: str,
        app: str,
        app_folder: Path,
        run_folder: Path,
        network: str,
        broker_url: str,
        clock: ShiftedClock | FastClock | None = None,
        settings: Mapping[str, Json] | None = None,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            engine: what runs it.
            name: the node's name, unique within its stack.
            image: the node image; with a clock of its own, libfaketime has to be in it.
            app: what ``celery -A`` gets.
            app_folder: the folder that `app` is imported from.
            run_folder: the run's folder, with `journal` in it.
            network: where the broker is.
            broker_url: as seen from inside `network`.
            clock: None for the real one.
            settings: Celery settings that win over the app's own, such as `timezone`.
            env: more environment; it wins over all that the harness sets.
            labels: more labels.
        """
        (run_folder / "beat").mkdir(exist_ok=True)
        own = {} if clock is None else clock.env()
        if settings:
            try:
                own["HARNESS_SETTINGS"] = json.dumps(dict(settings))
            except (TypeError, ValueError) as error:
                raise UsageError(f"the settings of {name} are not JSON: {error}") from error
        spec = agent_spec(
            name=name,
            image=image,
            command=("-A", app, "beat", f"--schedule={RUN_INSIDE}/beat/{name}", "--loglevel=info"),
            app_folder=app_folder,
            run_folder=run_folder,
            broker_url=broker_url,
            env={**own, **(env or {})},
            labels=labels,
        )
        super().__init__(engine, spec, run_folder=run_folder, network=network)
