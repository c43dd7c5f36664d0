"""The needs of an app: its framework, environment, services, commands before the start, folders to write to."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.project.app_tasks import settings_in
from harness.project.celery_apps import Names
from harness.project.command_line import Command
from harness.project.migrations import Migration, migrations_in
from harness.project.proposed_values import DATABASE, Value, proposed, values_in
from harness.project.required_variables import Variable, variables_in
from harness.project.source_files import Module, Sources, dotted, text_of
from harness.project.worker_commands import Line, is_for_production

_POSTGRESQL = frozenset({"psycopg", "psycopg2", "asyncpg", "pg8000"})
_POSTGRESQL_TEXT = re.compile(r"postgres(ql)?(\+\w+)?://|django\.(db|contrib\.gis\.db)\.backends\.post(gresql|gis)")
_SQLITE = re.compile(r"sqlite:///(?!/|:memory:)[^\s\"']+")
_REDIS_CACHES = ("django_redis", "django.core.cache.backends.redis")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The needs of an app beside the broker and the results."""

    framework: str = "plain"
    """`django`, `flask`, `fastapi`, or `plain` for none of them."""
    services: tuple[str, ...] = ()
    migrations: tuple[Migration, ...] = ()
    """The commands that make the app's tables."""
    env: Mapping[str, Value]
    """The values to set, by variable."""
    lacking: tuple[Variable, ...] = ()
    """The variables without which the app cannot be imported, and for which no value was found."""
    known: Mapping[str, Value]
    """All values that the project shows for its variables."""
    written: tuple[str, ...] = ()
    """The reasons why the app's folder has to be writable; empty if nothing writes there."""

    def prepare_in(self, folder: PurePosixPath, *imported: PurePosixPath) -> Mapping[str, str]:
        """Return the commands that make the app's tables, each with where it was found.

        Args:
            folder: the folder of the project in which they are run.
            imported: more folders that Python imports from.
        """
        commands = ((one.command_in(folder, imported), one.source) for one in self.migrations)
        return {command: source for command, source in commands if command is not None}

    def not_prepared_in(self, folder: PurePosixPath, *imported: PurePosixPath) -> tuple[str, ...]:
        """Return where commands were found that make the app's tables, and that `prepare_in` leaves out."""
        return tuple(one.source for one in self.migrations if one.command_in(folder, imported) is None)

    def value_for(self, variable: str) -> Value | None:
        """Return a value for a variable that turns out to be needed."""
        return self.known.get(variable)


def needs_of(sources: Sources, lines: Sequence[Line], commands: Sequence[Command]) -> Needs:
    """Return what the sources of a project say that its app needs.

    Args:
        sources: the project.
        lines: its command lines.
        commands: the workers and beats in them.
    """
    imported = _imported(sources)
    known = values_in(sources)
    variables = variables_in(sources)
    services = tuple(_services(sources, imported))
    urls = (known[one.name].value for one in variables if one.name in DATABASE and one.name in known)
    if "postgresql" not in services and any(url.startswith("postgres") for url in urls):
        services = ("postgresql", *services)
    env, lacking = proposed(variables, known, needs_postgresql="postgresql" in services)
    if "redis" not in services and any(value.value.startswith("{redis.") for value in env.values()):
        services = (*services, "redis")
    framework = _framework(sources, imported)
    if framework == "django" and (value := _django_settings(sources)) is not None:
        env.setdefault(value.name, value)
    return Needs(
        framework=framework,
        services=services,
        migrations=migrations_in(sources, lines, framework=framework, imported=imported),
        env=env,
        lacking=lacking,
        known=known,
        written=tuple(dict.fromkeys(_written(sources, commands))),
    )


def _imported(sources: Sources) -> frozenset[str]:
    """Return the top-level names of what the modules import, without tests and modules for production."""
    found: set[str] = set()
    for module in sources.own_modules:
        if not is_for_production(module.path):
            found.update(full.partition(".")[0] for full in Names.of(module).meanings.values())
    return frozenset(found)


def _framework(sources: Sources, imported: frozenset[str]) -> str:
    if "django" in imported or any(sources.named(r"manage\.py")):
        return "django"
    return next((name for name in ("flask", "fastapi") if name in imported), "plain")


def _services(sources: Sources, imported: frozenset[str]) -> Iterator[str]:
    texts = [
        text
        for module in sources.own_modules
        if not is_for_production(module.path)
        for node in module.nodes
        if isinstance(node, ast.expr) and (text := text_of(node)) is not None
    ]
    if imported & _POSTGRESQL or any(_POSTGRESQL_TEXT.match(text) for text in texts):
        yield "postgresql"
    if "redis" in imported or any(text.startswith(_REDIS_CACHES) for text in texts):
        yield "redis"


def _django_settings(sources: Sources) -> Value | None:
    """Return the settings module of manage.py, if no module that a worker imports sets it."""
    said: dict[PurePosixPath, str] = {}
    for module in sources.modules:
        for node in module.nodes:
            match node:
                case ast.Call(func=ast.Attribute(attr="setdefault"), args=[key, value]):
                    if text_of(key) == "DJANGO_SETTINGS_MODULE" and (text := text_of(value)) is not None:
                        said[module.path] = text
    for path, text in said.items():
        if path.name == "manage.py" and not any(
            other.name not in {"manage.py", "wsgi.py", "asgi.py"} for other in said
        ):
            return Value(name="DJANGO_SETTINGS_MODULE", value=text, origin=str(path))
    return None


def _written(sources: Sources, commands: Sequence[Command]) -> Iterator[str]:
    """Yield what the app writes below its folder."""
    for module in sources.own_modules:
        if not is_for_production(module.path):
            yield from (f"{what} in {module.path}" for what in _written_by(module))
    for command in commands:
        # Beat's own schedule is not written where a worker runs.
        for file in () if command.is_beat else command.written:
            if not file.startswith(("/", "%", "-", "$")):
                yield f"{file} in {command.source}"


def _written_by(module: Module) -> Iterator[str]:
    names = Names.of(module)
    for name, value in settings_in(module.nodes):
        text = ast.unparse(value)
        if name == "NAME" and re.search(r"sqlite3?['\"]", text):
            yield "a SQLite file"
        elif name == "MEDIA_ROOT":
            yield name
        elif name == "filename" and (path := text_of(value)) is not None and not path.startswith("/"):
            yield f"the log {path}"
    for node in module.nodes:
        if isinstance(node, ast.expr) and (found := _SQLITE.match(text_of(node) or "")):
            yield found[0]
        if isinstance(node, ast.Call) and _opens_to_write(node, names):
            yield f"{ast.unparse(node)}, line {node.lineno},"


def _opens_to_write(node: ast.Call, names: Names) -> bool:
    """Return whether a call opens a file of a relative, literal name to write to it."""
    if dotted(node.func) != "open" or "open" in names.meanings or not node.args:
        return False
    mode = node.args[1] if len(node.args) > 1 else next((one.value for one in node.keywords if one.arg == "mode"), None)
    path = text_of(node.args[0])
    return path is not None and not path.startswith("/") and bool(set(text_of(mode) or "") & set("wax+"))
