"""The lines to paste into an app that a remedy has, read as the settings of Celery that they would set."""

import ast
from collections.abc import Iterable, Mapping, Sequence

from harness.records.values import Json


def without_repetition(lines: Iterable[str], task: str) -> tuple[str, ...]:
    """Return the lines without those of which another one does all, and possibly more."""
    does = {line: settings_of_lines([line], task) for line in dict.fromkeys(lines)}
    kept = list(does)
    for line, settings in does.items():
        if settings and any(_is_part(settings, does[other]) for other in kept if other != line):
            kept.remove(line)
    return tuple(kept)


def _is_part(some: Mapping[str, Json], every: Mapping[str, Json]) -> bool:
    """Return whether settings contain others; of the options of a task, each counts."""
    return all(
        _is_part(value, every[name])
        if isinstance(value, Mapping) and isinstance(every.get(name), Mapping)
        else name in every and every[name] == value
        for name, value in some.items()
    )


def settings_of_lines(lines: Iterable[str], task: str) -> dict[str, Json]:
    """Return the Celery settings that do what some lines would do if they were pasted into the app.

    Args:
        lines: such as `@app.task(acks_late=True)`, `app.conf.task_acks_late = True`, `app.conf.update(...)` or
            `app.conf.task_annotations["*"].update(...)`. Others do nothing.
        task: the task whose decorator is meant.
    """
    settings: dict[str, Json] = {}
    for line in lines:
        for statement in _parsed(line.removeprefix("@")):
            match statement:
                case ast.Expr(value=ast.Call(func=called, keywords=keywords)):
                    said = {one.arg: _value(one.value) for one in keywords if one.arg and _is_literal(one.value)}
                    if said:
                        settings = laid_over(settings, _set_by(called, said, task))
                case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if _is_literal(value):
                    settings = laid_over(settings, {name: _value(value)})
    return settings


def _set_by(called: ast.expr, said: Mapping[str, Json], task: str) -> Mapping[str, Json]:
    """Return the settings that a call with these keywords sets; empty if it is none of those that set any."""
    match called:
        case ast.Attribute(value=ast.Attribute(attr="conf"), attr="update"):
            return said
        case ast.Attribute(value=ast.Subscript(slice=ast.Constant(value=str(key))), attr="update"):
            return {"task_annotations": {key: said}}
        case ast.Attribute(attr="task"):
            return {"task_annotations": {task: said}}
        case _:
            return {}


def laid_over(settings: Mapping[str, Json], more: Mapping[str, Json]) -> dict[str, Json]:
    """Return settings with others over them: of `task_annotations`, each option over that of the same key."""
    own, others = settings.get("task_annotations"), more.get("task_annotations")
    if not isinstance(own, Mapping) or not isinstance(others, Mapping):
        return {**settings, **more}
    annotations = {**own, **{key: {**own.get(key, {}), **options} for key, options in others.items()}}
    return {**settings, **more, "task_annotations": annotations}


def _parsed(line: str) -> Sequence[ast.stmt]:
    try:
        return ast.parse(line).body
    except SyntaxError:
        return ()


def _is_literal(node: ast.expr) -> bool:
    try:
        return _value(node) is not ...
    except ValueError:
        return False


def _value(node: ast.expr) -> Json:
    return ast.literal_eval(node)
