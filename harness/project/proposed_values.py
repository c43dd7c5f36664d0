"""Values for the environment variables that a project needs. None is taken from a file for production."""

import ast
import configparser
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from harness.project.celery_apps import Names
from harness.project.required_variables import Need, Variable
from harness.project.source_files import Sources, text_of
from harness.project.worker_commands import compose_services, environment_of, is_for_production

_EXAMPLES = r"\.?env[._-](example|sample|template|dist|test|testing|ci)(\..*)?|\.?(example|sample|template|test)\.env"
"""Files of values that are there to be seen. `.env` itself is not."""
_STACK: Mapping[str, str] = {
    **dict.fromkeys(("EMAIL_HOST", "MAIL_SERVER", "MAIL_HOST", "SMTP_HOST", "SMTP_SERVER"), "{mailbox.host}"),
    **dict.fromkeys(("EMAIL_PORT", "MAIL_PORT", "SMTP_PORT"), "{mailbox.port}"),
    **dict.fromkeys(
        ("CELERY_BROKER_URL", "BROKER_URL", "AMQP_URL", "RABBITMQ_URL", "CLOUDAMQP_URL", "CELERY_BROKER"),
        "{broker.url}",
    ),
    **dict.fromkeys(("REDIS_URL", "CACHE_URL", "REDIS_DSN", "CACHE_REDIS_URL"), "{redis.url}"),
}
"""The variables that the stack knows. The values are templates, which are filled in when a stack starts."""
_WITHOUT_TLS = frozenset({"EMAIL_USE_TLS", "EMAIL_USE_SSL", "MAIL_USE_TLS", "MAIL_USE_SSL", "SMTP_TLS", "SMTP_SSL"})
_SET_BY_HARNESS = frozenset({"CELERY_RESULT_BACKEND", "APP_DATABASE_URL"})
DATABASE = frozenset({"DATABASE_URL", "DB_URL", "SQLALCHEMY_DATABASE_URI", "SQLALCHEMY_DATABASE_URL"})
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|PRIVATE_KEY|CREDENTIAL|SALT|_DSN$|_KEY$")
SQLITE_URL = "sqlite:////harness/run/app/app.sqlite3"
"""A file in the run folder, which all nodes of a stack share."""
MADE_UP = "made-up-by-harness-init"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value for a variable."""

    name: str
    value: str
    origin: str
    """The place that it comes from, or the reason why it is as it is."""


def value_for(variable: str, known: Mapping[str, Value], *, needs_postgresql: bool) -> Value | None:
    """Return a value for a variable that is needed; None if there is none to be had.

    Args:
        variable: its name.
        known: the values of `values_in`.
        needs_postgresql: whether the app needs PostgreSQL.
    """
    if variable in _STACK:
        return Value(name=variable, value=_STACK[variable], origin="the stack's own")
    if variable in _WITHOUT_TLS:
        return Value(name=variable, value="false", origin="the mailbox speaks no TLS")
    if variable in DATABASE:
        url = _database_url(known.get(variable)) if needs_postgresql else SQLITE_URL
        return Value(name=variable, value=url, origin="the stack's own")
    if _SECRET.search(variable):
        return Value(name=variable, value=MADE_UP, origin="made up: it is no secret")
    value = known.get(variable)
    if value is not None and re.match(r"(py)?amqps?://", value.value):
        # A broker of its own, which a stack does not have.
        return Value(name=variable, value="{broker.url}", origin="the stack's own")
    return value


def _database_url(known: Value | None) -> str:
    """Return the URL of the stack's own PostgreSQL, as a template, with the driver that the project names."""
    driver = re.match(r"postgres(?:ql)?\+\w+(?=://)", known.value) if known is not None else None
    if driver is None:
        return "{database.url}"
    return (
        f"{driver[0]}://{{database.user}}:{{database.password}}@{{database.host}}:{{database.port}}/{{database.name}}"
    )


def proposed(
    variables: tuple[Variable, ...], known: Mapping[str, Value], *, needs_postgresql: bool
) -> tuple[dict[str, Value], tuple[Variable, ...]]:
    """Return the values to set, and the variables that modules need and that have no value."""
    values: dict[str, Value] = {}
    lacking: list[Variable] = []
    for variable in variables:
        name = variable.name
        if name in _SET_BY_HARNESS or (variable.need is Need.NEVER and not _is_stacks(name, needs_postgresql)):
            continue
        value = value_for(name, known, needs_postgresql=needs_postgresql)
        if value is not None:
            values[name] = value
        elif variable.need is Need.IMPORT:
            lacking.append(variable)
    return values, tuple(lacking)


def _is_stacks(name: str, needs_postgresql: bool) -> bool:  # noqa: FBT001 - the one thing that decides about a database.
    """Return whether the app would reach out to something else by its default than to what the stack has."""
    return name in _STACK or name in _WITHOUT_TLS or (needs_postgresql and name in DATABASE)


def values_in(sources: Sources) -> dict[str, Value]:
    """Return the values that examples, compose files and the settings of the tests show; the first of them counts."""
    found: dict[str, Value] = {}
    for value in (*_of_examples(sources), *_of_tests(sources), *_of_compose(sources)):
        found.setdefault(value.name, value)
    return found


def _of_examples(sources: Sources) -> Iterator[Value]:
    for path in sources.named(_EXAMPLES):
        if not is_for_production(path):
            yield from _pairs(sources.text(path).splitlines(), str(path))


def _pairs(lines: list[str], origin: str) -> Iterator[Value]:
    for line in lines:
        found = re.fullmatch(r"\s*(?:export\s+)?(?:[DR]:)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*", line)
        if found is None:
            continue
        value = found[2]
        quoted = re.match(r"(['\"])(.*?)\1", value)
        value = quoted[2] if quoted else re.sub(r"\s+#.*", "", value)
        # A reference to another variable, or nothing, is no value.
        if value and "$" not in value:
            yield Value(name=found[1], value=value, origin=origin)


def _of_compose(sources: Sources) -> Iterator[Value]:
    for path, service, said in compose_services(sources):
        if is_for_production(path):
            continue
        for name, value in environment_of(said).items():
            filled = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", value)
            if filled and "$" not in filled:
                yield Value(name=name, value=filled, origin=f"{path}: service {service}")


def _of_tests(sources: Sources) -> Iterator[Value]:
    for path in sources.named(r"pyproject\.toml|pytest\.toml|\.pytest\.toml"):
        try:
            said = tomllib.loads(sources.text(path))
        except tomllib.TOMLDecodeError:
            continue  # Who writes the settings says what is wrong with it.
        tool = said.get("tool", {})
        options = tool.get("pytest", {}) if isinstance(tool, dict) else {}
        yield from _pairs(_list(options.get("ini_options", {}), "env"), f"{path}: pytest")
        plain = tool.get("pytest_env", {}) if isinstance(tool, dict) else {}
        for name, value in plain.items():
            if isinstance(value, str | int):
                yield Value(name=name, value=str(value), origin=f"{path}: pytest_env")
    for path in sources.named(r"pytest\.ini|setup\.cfg|tox\.ini|\.pytest\.ini"):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(sources.text(path))
        except configparser.Error:
            continue
        for section in ("pytest", "tool:pytest"):
            yield from _pairs(parser.get(section, "env", fallback="").splitlines(), f"{path}: pytest")
    yield from _of_conftests(sources)


def _list(table: Any, key: str) -> list[str]:
    value = table.get(key) if isinstance(table, dict) else None
    return value.splitlines() if isinstance(value, str) else [str(one) for one in value or ()]


def _of_conftests(sources: Sources) -> Iterator[Value]:
    for module in sources.modules:
        if not module.is_test or module.path.name != "conftest.py":
            continue
        names = Names.of(module)
        for node in module.nodes:
            match node:
                case ast.Assign(targets=[ast.Subscript(value=owner, slice=key)], value=value):
                    is_environ = names.full(owner) == "os.environ"
                case ast.Call(
                    func=ast.Attribute(attr="setdefault" | "setenv" as how, value=owner), args=[key, value, *_]
                ):
                    is_environ = how == "setenv" or names.full(owner) == "os.environ"
                case _:
                    continue
            name, text = text_of(key), text_of(value)
            if is_environ and name and text:
                yield Value(name=name, value=text, origin=_where(module.path))


def _where(path: PurePosixPath) -> str:
    return str(path)
