"""The options of `harness run`: those of the named scenario, beside those that all scenarios have."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness.errors import UsageError
from harness.project.settings import load
from harness.running.run import find_scenario
from harness.scenario import Option, Scenario

_SCENARIO = "celery_harness.scenario"
"""The key under which the scenario of a command line is kept while the line is parsed."""


class RunCommand(click.Command):
    """A command with the options of the named scenario, beside those that all scenarios have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the scenario first, and then parse the line with its options."""
        first = self.make_parser(ctx)
        first.ignore_unknown_options = True
        # This pass only finds the scenario, and the folder of its module.
        named, _, _ = first.parse_args(args=list(args))
        name = named.get("scenario")
        # An option of a scenario's own is unknown until the scenario is, so the scenario has to come first.
        if isinstance(name, str) and not name.startswith("-"):
            ctx.meta[_SCENARIO] = find_scenario(name, scenario_folder(named.get("app_dir")))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all options; the scenario's own ones come before `--help`."""
        common = super().get_params(ctx)
        scenario: Scenario | None = ctx.meta.get(_SCENARIO)
        return common if scenario is None else [*common[:-1], *_owns(scenario, common), common[-1]]


def _owns(scenario: Scenario, common: Sequence[click.Parameter]) -> list[click.Option]:
    """Return the options of a scenario's own. Raises UsageError for a name that another option has."""
    owns = [_own(option) for option in scenario.options]
    taken = {name for param in common for name in (param.name, *param.opts)}
    for own in owns:
        if not taken.isdisjoint({own.name, *own.opts}):
            raise UsageError(f"{scenario.name} has an option {own.name!r}, and there is another: rename its own.")
        taken |= {own.name, *own.opts}
    return owns


def _own(option: Option) -> click.Option:
    """Return an option of a scenario's own as an option of click."""
    kind: click.ParamType[Any]
    if option.kind is Path:
        kind = click.Path(path_type=Path, exists=True, dir_okay=False, readable=True)
    elif option.kind is int:
        kind = click.IntRange(min=None if option.least is None else math.ceil(option.least))
    elif option.kind is float:
        kind = click.FloatRange(min=option.least)
    else:
        kind = click.STRING
    shown = option.default is not None
    flag = "--" + option.name.replace("_", "-")
    return click.Option([flag, option.name], type=kind, default=option.default, show_default=shown, help=option.help)


def scenario_of(ctx: click.Context, name: str, app_dir: Path | None) -> Scenario:
    """Return the scenario of a parsed command line."""
    found: Scenario = ctx.meta.get(_SCENARIO) or find_scenario(name, scenario_folder(app_dir))
    return found


def scenario_folder(app_dir: Path | None) -> Path:
    """Return the folder that scenario and app are imported from: what was given, or what the settings say."""
    return load(Path()).folder if app_dir is None else Path(app_dir)
