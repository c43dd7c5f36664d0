"""One run of a scenario: up, drive, settle, audit, down. It leaves a run folder."""

import importlib.util
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.errors import UsageError
from harness.faults.fault_account import write_accounts
from harness.faults.fault_text import fault_of
from harness.faults.timetable import FaultTimetable, Planned, finding_of, needs_own_broker
from harness.measure.recovery import Signs
from harness.measure.stages import Stages
from harness.project.settings import COMMAND_LINE, Settings
from harness.records.finding_codes import Code
from harness.records.values import Json
from harness.records.verdict import Finding, Verdict
from harness.scenario import Drive, Scenario
from harness.stack.limits import TIMEOUT_S
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import Say, SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import REAL

Progress = Callable[[str, int, int], None]
"""Receives the phase (`sent` or `ended`), the number done, and the total."""


def find_scenario(name: str, folder: Path) -> Scenario:
    """Import the scenario called `name` from `folder`.

    Args:
        name: `emails` for the module `scenarios.emails`, or, where there is none, for the module `emails`; or any
            dotted module. It holds an instance `scenario`; a package may have it in its module `scenario`.
        folder: where modules are looked for first.

    Raises:
        UsageError: there is no such module, or it holds no scenario.
    """
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.insert(0, place)
    module_name = _module_of(name, folder)
    try:
        module = _imported(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"the scenario {module_name} needs the module {error.name}, which is not installed."
            ) from error
        known = _known(folder / "scenarios")
        hint = f" There are: {', '.join(known)}." if known and "." not in name else ""
        raise UsageError(f"no scenario {name!r}: {folder} has no module {module_name}.{hint}") from error
    except Exception as error:
        # A module may raise any error while it is imported.
        raise UsageError(f"the scenario {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    scenario = getattr(module, "scenario", None)
    if not isinstance(scenario, Scenario):
        raise UsageError(f"the module {module_name} has no `scenario`, an instance of harness.scenario.Scenario.")
    return scenario


def _imported(name: str) -> ModuleType:
    """Import a module; of a package that has no scenario itself, its module named `scenario`, if there is one."""
    module = importlib.import_module(name)
    inner = f"{name}.scenario"
    if isinstance(getattr(module, "scenario", None), Scenario) or not hasattr(module, "__path__"):
        return module
    return importlib.import_module(inner) if importlib.util.find_spec(inner) else module


def _known(scenarios: Path) -> list[str]:
    """Return the names of the modules and folders in `scenarios` that have a scenario, sorted."""
    modules = {path: path.stem for path in scenarios.glob("[!_]*.py")}
    modules |= {path: path.parent.name for path in scenarios.glob("[!_]*/scenario.py")}
    return sorted(name for path, name in modules.items() if re.search(r"^scenario\b", path.read_text(), re.MULTILINE))


def _module_of(name: str, folder: Path) -> str:
    """Return the module for a scenario's name; one in `scenarios` has precedence."""
    if "." in name:
        return name
    has_own = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
    in_scenarios = (folder / "scenarios" / f"{name}.py").is_file() or (folder / "scenarios" / name).is_dir()
    return name if has_own and not in_scenarios else f"scenarios.{name}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of one run."""

    scenario: Scenario
    drive: Drive
    stack: StackSpec
    """The stack to run it on; see `stack_for`."""
    root: Path
    """The folder in which run folders are created."""
    timeout_s: float = TIMEOUT_S
    """Seconds without the end of any task after which the wait for rest ends."""
    faults: Sequence[Planned] = ()
    """The faults while the steps are taken; the times count from the first step."""
    over_s: float = 0.0
    """Seconds over which the steps are spread evenly; 0 for one after another."""
    about: Mapping[str, Json] = field(default_factory=dict)
    """More for run.json."""


def stack_for(scenario: Scenario, settings: Settings, said: Mapping[str, object] | None = None) -> StackSpec:
    """Return the stack that a scenario needs, with one worker unless more are said.

    Args:
        scenario: what it says wins over the settings of the project.
        settings: of the project.
        said: what the command line says, by the keys of the settings; it wins over both.

    Raises:
        UsageError: no app is named, a value is not of its key's type, or a setting is not served.
    """
    own = {"app": scenario.app or None, "options": scenario.worker_options, "env": scenario.env}
    holding = settings.over("the scenario", own).over(COMMAND_LINE, said or {})
    return spec_of(holding, workers=1, mailbox=scenario.mailbox)


def for_faults(spec: StackSpec, planned: Sequence[Planned]) -> StackSpec:
    """Return the stack with what its faults need: a link to the broker, a broker of its own."""
    return replace(
        spec,
        link=spec.link or any(one.needs_link for one in planned),
        own_broker=spec.own_broker or needs_own_broker(planned),
        small_disk=spec.small_disk or any(fault_of(one.fault).needs_small_disk for one in planned),
    )


def execute(
    session: SharedParts,
    plan: Plan,
    progress: Progress = lambda *_: None,
    begun: Callable[[RunFolder], None] = lambda _: None,
) -> tuple[RunFolder, Audit]:
    """Run a plan, and return the run folder and the audit.

    Args:
        session: has the broker.
        plan: what to run.
        progress: receives how many tasks were sent and have ended.
        begun: receives the new run folder before anything of the run is started.

    Raises:
        HarnessError: the stack could not be started, or a run folder could not be written.
    """
    scenario = plan.scenario
    session.start()
    folder = RunFolder.create(plan.root, scenario.name)
    begun(folder)
    options = {name: str(value) if isinstance(value, Path) else value for name, value in plan.drive.options.items()}
    about: dict[str, Json] = {
        "scenario": scenario.name,
        "count": plan.drive.count,
        "seed": plan.drive.seed,
        "options": options,
    }
    if plan.faults:
        about["faults"] = [str(one) for one in plan.faults]
    if plan.over_s:
        about["over_s"] = plan.over_s
    about |= plan.about
    stack = Stack(session, plan.stack, folder, promise=scenario.promise, about=about)
    signs = Signs(stages := Stages(lambda _: None))
    if plan.faults:
        stack.listen(stages.take)
        stack.listen(signs.take)
    with stack:
        timetable = FaultTimetable(stack, plan.faults, signs=signs) if plan.faults else None
        audited = play(
            scenario,
            stack,
            plan.drive,
            timeout_s=plan.timeout_s,
            timetable=timetable,
            over_s=plan.over_s,
            say=session.say,
            progress=progress,
        )
        return folder, audited


def play(
    scenario: Scenario,
    stack: Stack,
    drive: Drive,
    *,
    timeout_s: float = TIMEOUT_S,
    timetable: FaultTimetable | None = None,
    over_s: float = 0.0,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Audit:
    """Drive a scenario on a running stack, settle, and return the audit with the scenario's own checks in it.

    Args:
        scenario: the scenario.
        stack: the stack; with a mailbox if the scenario needs one.
        drive: the number of steps, the seed and the options.
        timeout_s: seconds without the end of any task after which the wait for rest ends.
        timetable: the faults, which all come and go before the wait for rest begins; None for none.
        over_s: seconds over which the steps are spread evenly; 0 for one after another.
        say: receives a message at the start of each phase.
        progress: receives how many tasks were sent and have ended.
    """
    say("preparing")
    scenario.prepare(stack, drive)
    if timetable is not None:
        timetable.start(time.time())
    try:
        begin_s = REAL.now()
        for done, number in enumerate(drive.numbers, start=1):
            # A step that took long does not delay those that follow.
            REAL.sleep(max(0.0, begin_s + over_s * (done - 1) / drive.count - REAL.now()))
            scenario.step(stack.producer, number, drive.seed)
            progress("sent", done, drive.count)
        scenario.finish(stack, drive)
        if timetable is not None:
            say("all is sent; waiting for the faults to come and go")
            timetable.finish()
    finally:
        if timetable is not None:
            timetable.stop()

    def checks() -> Iterator[Finding]:
        say("everything came to rest; checking and auditing")
        if timetable is not None:
            accounts = list(timetable.accounts(()))
            write_accounts(stack.folder, accounts)
            yield from map(finding_of, accounts)
        yield from checked(scenario, stack, drive)

    return stack.settle(
        timeout_s,
        effects=lambda: scenario.effects(stack, drive),
        checks=checks,
        watch=lambda ledger: progress("ended", ledger.ended, ledger.sent),
    )


def checked(scenario: Scenario, stack: Stack, drive: Drive) -> Iterator[Finding]:
    """Yield the findings of the scenario's own check; a crash of it is a finding with verdict unknown."""
    try:
        yield from scenario.check(stack, drive)
    except Exception as error:  # noqa: BLE001 - the run is audited whatever error the check raises.
        text = f"the check of {scenario.name} crashed: {type(error).__name__}: {error}"
        yield Finding(code=Code.CHECK_CRASHED, verdict=Verdict.UNKNOWN, count=1, text=text)
