"""Imports point down, and each library is known to those modules alone that are there to know it."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.commands.cli import PLACES

ROOT = Path(__file__).parents[2]

# A module may import what stands in a line below its own, and its neighbours within one package.
FLOORS = (
    ("harness.__main__",),
    ("harness.commands", "harness.plugin", "harness.celery_setup", "harness.load"),
    ("harness.selftest",),
    ("harness.loadtest",),
    ("harness.running",),
    ("harness.scenario", "harness.stack"),
    ("harness.faults",),
    ("harness.producer", "harness.containers"),
    ("harness.project",),
    ("harness.app_binding",),
    ("harness.broker_connection",),
    ("harness.report",),
    ("harness.audit",),
    ("harness.measure",),
    ("harness.console",),
    ("harness.records",),
    ("harness.wait",),
    ("harness.errors", "harness.printable"),
)

# Who may import what is not of the standard library; what is not listed, nobody may.
KNOWN_TO = {
    "aiosmtpd": ("harness.inside.smtp_server",),
    "billiard": ("harness.inside.agent",),
    "amqp": (
        "harness.producer",
        "harness.app_binding",
        "harness.broker_connection",
        "harness.containers.rabbitmq",
        "harness.inside.breakpoints",
    ),
    "celery": (
        "harness.producer",
        "harness.app_binding",
        "harness.broker_connection",
        "harness.inside",
        "harness.selftest.app",
        "scenarios",
    ),
    "click": ("harness.commands",),
    "cronsim": ("harness.audit.beat.crontab",),
    "docker": ("harness.containers.docker_engine",),
    "duckdb": ("harness.audit.evidence_database",),
    "fastapi": ("harness.inside.web", "scenarios.web"),
    "fastapi_swagger": ("harness.inside.web",),
    "flask": ("harness.loadtest.locust_page",),
    "gevent": tuple(
        f"harness.loadtest.{name}"
        for name in (
            "locust_run",
            "locust_table",
            "run_legs",
            "stack_client",
            "generators",
            "publish_pipeline",
            "load_processes",
        )
    ),
    "geventhttpclient": ("harness.loadtest.generators",),
    "h11": ("harness.inside.web",),
    "hdrh": ("harness.measure.stages",),
    "jinja2": ("scenarios",),
    "kombu": (
        "harness.producer",
        "harness.app_binding",
        "harness.celery_setup",
        "harness.broker_connection",
        "harness.inside",
        "scenarios",
    ),
    "locust": (
        "harness.load",
        *(
            f"harness.loadtest.{name}"
            for name in ("locust_run", "locust_table", "exit_report", "stack_order", "load_processes")
        ),
    ),
    "packaging": ("harness.project", "harness.containers.app_image", "harness.containers.own_dockerfile"),
    "pamqp": ("harness.inside.amqp_frames",),
    "psycopg": ("harness.containers.postgresql",),
    "psutil": ("harness.containers.ownership", "harness.loadtest.generators", "harness.loadtest.processor_time"),
    "pydantic": ("harness.inside.web", "scenarios.web"),
    "pytest": ("harness.plugin", "harness.celery_setup"),
    "pytest_celery": ("harness.celery_setup",),
    "pytest_docker_tools": ("harness.celery_setup",),
    "redis": ("harness.containers.redis",),
    "requests": tuple(
        f"harness.containers.{name}"
        for name in ("docker_engine", "docker_registry", "rabbitmq", "time_limits", "web_node")
    ),
    "rich": (
        "harness.report",
        "harness.console",
        "harness.commands",
    ),
    "sqlalchemy": (
        "harness.audit.results",
        "harness.faults.write_lock",
        "harness.stack.row_effects",
        "harness.inside",
        "scenarios",
    ),
    "testcontainers": ("harness.containers.docker_engine",),
    "uvicorn": ("harness.inside.web",),
    "yaml": ("harness.project.worker_commands", "harness.commands.shared_options"),
}

# What is one of several that do the same; everybody else uses their interface.
CHOSEN_BY = {
    "harness.containers.docker_engine": ("harness.containers.engine_choice",),
    "harness.containers.rabbitmq": (
        "harness.containers.broker_choice",
        "harness.celery_setup.docker",
        "harness.celery_setup.servers",
    ),
    "harness.containers.postgresql": ("harness.stack.services",),
    "harness.containers.redis": ("harness.stack.services",),
}

INSIDE = (
    *(f"harness.records.{name}" for name in ("journal", "event", "expectation", "values")),
    "harness.errors",
)
PUBLIC = tuple(f"harness.{name}" for name in harness.__all__)

# What these may import of the harness; beyond it the floors decide.
ONLY = {
    # The web producer wraps the producer and reads the result tables.
    "harness.inside.web": (
        *INSIDE,
        "harness.inside.web",
        "harness.inside.breakpoints",
        "harness.producer",
        "harness.broker_connection",
        "harness.audit.results",
        "harness.records.route",
    ),
    "harness.inside.agent": (
        *INSIDE,
        "harness.records.message",
        "harness.inside.app_settings",
        "harness.records.moment",
        "harness.inside.beat_watch",
        "harness.inside.breakpoints",
        "harness.inside.app_results",
        "harness.inside.app_routes",
        "harness.inside.image_check",
        "harness.inside.kernel_kills",
        "harness.inside.live_settings",
        "harness.inside.missing_module",
        "harness.inside.open_transactions",
        "harness.inside.node_clock",
    ),
    # It runs before anything of the harness can be imported, and then asks only this.
    "harness.inside.start": ("harness.inside.image_check",),
    "harness.inside.image_check": (),
    "harness.inside.missing_module": ("harness.inside.start",),
    "harness.inside.open_transactions": (),
    "harness.inside.kernel_kills": (),
    "harness.inside.app_settings": INSIDE,
    "harness.inside.breakpoints": ("harness.records.moment",),
    "harness.inside.app_results": INSIDE,
    # It tells what annotations set as the settings from outside lay them over the app's own.
    "harness.inside.live_settings": (*INSIDE, "harness.inside.app_settings"),
    "harness.inside.node_clock": INSIDE,
    "harness.inside.app_routes": (*INSIDE, "harness.records.route"),
    "harness.inside.beat_watch": (*INSIDE, "harness.records.moment"),
    "harness.inside.smtp_server": (*INSIDE, "harness.inside.mail_rules", "harness.inside.mail_store"),
    "harness.inside.amqp_frames": ("harness.records.link",),
    "harness.inside.tcp_link": ("harness.inside.amqp_frames", "harness.records.link"),
    "harness.inside.link_control": ("harness.inside.tcp_link", "harness.records.link", "harness.errors"),
    "harness.inside.mail_rules": (*INSIDE, "harness.inside.mail_store"),
    "harness.inside.mail_store": INSIDE,
    # It runs in the workers alone.
    "harness.selftest.app": (),
    "harness.records": ("harness.records", "harness.errors"),
    "harness.errors": (),
    "harness.scenario": ("harness.records",),
    # A worker imports the scenario, and has neither an engine nor pytest.
    "scenarios": (
        *PUBLIC,
        "harness.records",
        "harness.scenario",
        "harness.errors",
        "harness.wait",
        "harness.inside.web",
        "harness.load",
        "scenarios",
    ),
}
ONLY_HARNESS_ITSELF = (
    "harness.records.expectation",
    "harness.records.moment",
    "harness.records.verdict",
    "harness.scenario",
)
"""What `harness` may offer as its own: it is loaded with any of its modules, in every container."""

Imports = Mapping[str, frozenset[str]]
"""Per module, what it imports: modules, or names in them."""


def imports_of(root: Path) -> Imports:
    """All modules of `harness` and `scenarios` below `root`, with what each imports when it runs."""
    files = [path for package in ("harness", "scenarios") for path in (root / package).rglob("*.py")]
    return {_name(path.relative_to(root)): frozenset(_imported(ast.parse(path.read_text()))) for path in files}


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative imports are forbidden, so that this function need not know packages.
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imported(ast.Module(body=node.orelse, type_ignores=[]))
        else:
            yield from _imported(node)


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module or a name in one belongs to one of the packages or modules."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def floor(name: str) -> int | None:
    """Return a module's floor, counted from the top; None for a module without one, such as `harness` itself."""
    return next((number for number, rooms in enumerate(FLOORS) if within(name, rooms)), None)


def faults(imports: Imports) -> Iterator[str]:
    """Yield what is wrong with the imports, one line each."""
    for module, names in imports.items():
        for name in names:
            for reason in _reasons(module, name):
                yield f"{module} imports {name}: {reason}"
    try:
        TopologicalSorter(_graph(imports)).prepare()
    except CycleError as error:
        yield f"a cycle: {' -> '.join(error.args[1])}"


def _reasons(module: str, name: str) -> Iterator[str]:
    top = name.partition(".")[0]
    if top not in {"harness", "scenarios", *KNOWN_TO} and top not in sys.stdlib_module_names:
        yield "nobody may"
    if top in KNOWN_TO and not within(module, KNOWN_TO[top]):
        yield f"only {', '.join(KNOWN_TO[top])} may"
    if top == "scenarios" and not within(module, ("scenarios",)):
        yield "the harness knows no scenario"
    if top == "harness":
        yield from _reasons_inside(module, name)


def _reasons_inside(module: str, name: str) -> Iterator[str]:
    # The app's own routes run inside the web producer.
    inside = ("harness.inside", "scenarios.web")
    if within(name, ("harness.inside",)) and not within(module, inside):
        yield "what is inside is never imported from outside"
    if module == "harness" and not within(name, ONLY_HARNESS_ITSELF):
        yield f"harness itself may import {', '.join(ONLY_HARNESS_ITSELF)}"
    for chosen, by in CHOSEN_BY.items():
        if within(name, (chosen,)) and not within(module, by):
            yield f"only {', '.join(by)} chooses it"
    for package, allowed in ONLY.items():
        if within(module, (package,)) and not within(name, allowed):
            yield f"{package} may import {', '.join(allowed) or 'nothing of the harness'}"
    here, there = floor(module), floor(name)
    if here is not None and there is not None:
        package = ".".join(module.split(".")[:2])
        neighbours = within(name, (package,))
        if here > there or (here == there and not neighbours):
            yield "imports point down"


def _graph(imports: Imports) -> dict[str, set[str]]:
    """Return the modules that each module imports; a name in a module stands for the module."""
    graph: dict[str, set[str]] = {}
    for module, names in imports.items():
        targets = {name if name in imports else name.rpartition(".")[0] for name in names}
        graph[module] = {target for target in targets if target in imports and target != module}
    return graph


@pytest.fixture(scope="module")
def imports() -> Imports:
    return imports_of(ROOT)


def test_every_module_was_read_and_has_its_place(imports: Imports) -> None:
    placed = {module for module in imports if floor(module) is not None}
    elsewhere = {module for module in imports if within(module, ("harness.inside", "scenarios"))}
    assert imports.keys() - placed - elsewhere == {"harness"}
    assert {"harness.commands.cli", "harness.audit.audit", "harness.containers.engine", "harness.stack.stack"} <= placed


def test_imports_point_down_and_libraries_stay_where_they_belong(imports: Imports) -> None:
    assert list(faults(imports)) == []


@pytest.mark.parametrize(
    ("path", "line", "reason"),
    [
        ("harness/audit/audit.py", "from harness.containers import images", "imports point down"),
        ("harness/audit/audit.py", "from harness.producer import Producer", "imports point down"),
        ("harness/errors.py", "import harness.wait", "imports point down"),
        ("harness/producer.py", "from harness.containers.rabbitmq import Login", "imports point down"),
        ("harness/plugin.py", "from harness.commands import cli", "imports point down"),
        ("harness/running/run.py", "import scenarios.emails", "the harness knows no scenario"),
        ("harness/stack/stack.py", "from harness.inside import agent", "what is inside is never imported from outside"),
        (
            "harness/inside/agent.py",
            "from harness.audit.run_folder import RunFolder",
            "harness.inside.agent may import",
        ),
        ("harness/inside/agent.py", "import docker", "only harness.containers.docker_engine may"),
        ("harness/records/journal.py", "from harness.audit import results", "harness.records may import"),
        ("harness/errors.py", "import harness.records.event", "nothing of the harness"),
        ("harness/__init__.py", "from harness.stack.stack import Stack", "harness itself may import"),
        ("harness/scenario.py", "from harness.stack.stack import Stack", "harness.scenario may import"),
        ("harness/records/journal.py", "import sqlalchemy", "only harness.audit.results"),
        ("harness/containers/rabbitmq.py", "import testcontainers.core", "only harness.containers.docker_engine may"),
        ("harness/containers/rabbitmq.py", "import kombu", "only harness.producer"),
        (
            "harness/stack/stack.py",
            "def late():\n    from docker import client",
            "only harness.containers.docker_engine",
        ),
        ("harness/containers/images.py", "import docker", "only harness.containers.docker_engine may"),
        (
            "harness/stack/stack.py",
            "from harness.containers.rabbitmq import Broker",
            "only harness.containers.broker_choice, harness.celery_setup.docker",
        ),
        ("harness/stack/stack.py", "import pytest", "only harness.plugin, harness.celery_setup may"),
        ("harness/plugin.py", "import click", "only harness.commands may"),
        ("harness/stack/stack.py", "import numpy", "nobody may"),
        ("harness/stack/stack.py", "from .nodes import images", "nobody may"),
        ("scenarios/emails/tasks.py", "from harness.stack.stack import Stack", "scenarios may import"),
        ("scenarios/emails/tasks.py", "import docker", "only harness.containers.docker_engine may"),
        ("harness/audit/a.py", "import harness.audit.b", "a cycle: harness.audit.a -> harness.audit.b"),
    ],
)
def test_a_forbidden_import_is_reported(tmp_path: Path, path: str, line: str, reason: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"import json\n{line}\n")
    if "cycle" in reason:
        file.with_name("b.py").write_text("from harness.audit.a import thing\n")
    found = list(faults(imports_of(tmp_path)))
    assert any(reason in fault for fault in found), found


def test_what_only_a_type_checker_imports_is_no_import(tmp_path: Path) -> None:
    file = tmp_path / "harness" / "scenario.py"
    file.parent.mkdir()
    file.write_text("if TYPE_CHECKING:\n    from harness.stack.stack import Stack\nelse:\n    import docker\n")
    assert imports_of(tmp_path) == {"harness.scenario": {"docker"}}


# ------------------------------------------------------------------------------------- what is in nobody else's hands

ITS_OWNER = Path("harness/containers/docker_engine.py")
CLIENTS = re.compile(r"\b(?:DockerClient|APIClient)\b")
"""What docker-py calls its connection to an engine."""


def clients_in(root: Path) -> Iterator[str]:
    """Where a module other than its owner names docker-py's client or reaches for it, one line each."""
    for path in sorted(path for package in ("harness", "scenarios") for path in (root / package).rglob("*.py")):
        name = path.relative_to(root)
        if name == ITS_OWNER:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if _names_a_client(node):
                yield f"{name}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


def _names_a_client(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) if CLIENTS.search(name):
            return True
        # An engine's client, or the low-level one below it: `engine.client.api`, `client.api`.
        case ast.Attribute(value=ast.Name(id="client") | ast.Attribute(attr="client" | "_client"), attr="api"):
            return True
        case ast.AnnAssign(annotation=said) | ast.arg(annotation=said) | ast.FunctionDef(returns=said):
            # An annotation may be a string.
            return isinstance(said, ast.Constant) and bool(CLIENTS.search(str(said.value)))
    return False


def test_docker_pys_client_is_in_nobodys_hands_but_its_owners() -> None:
    assert list(clients_in(ROOT)) == []


@pytest.mark.parametrize(
    "line",
    [
        "def sweep(client: docker.DockerClient): ...",
        "def sweep(client: 'docker.APIClient | None'): ...",
        "def connect() -> 'docker.DockerClient': ...",
        "client: DockerClient",
        "client: 'DockerClient'",
        "from docker import APIClient",
        "client.api.containers()",
        "session.engine.client.api.containers()",
        "cast(docker.APIClient, client)",
    ],
)
def test_a_client_in_other_hands_is_reported(tmp_path: Path, line: str) -> None:
    file = tmp_path / "harness" / "stack.py"
    for path in (file, tmp_path / ITS_OWNER):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"import json\n{line}\n")
    found = list(clients_in(tmp_path))
    assert found
    assert {one.partition(":")[0] for one in found} == {"harness/stack.py"}


def _loaded_by(*modules: str) -> set[str]:
    """Return the packages that are loaded when `modules` are."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_stack_process_of_a_load_test_does_without_locust_which_would_patch_the_standard_library() -> None:
    assert {"locust", "gevent"} <= _loaded_by("harness.load")
    assert _loaded_by("harness.loadtest.stack_process") & {"locust", "gevent"} == set()


def test_what_runs_inside_a_container_loads_nothing_that_is_not_there() -> None:
    loaded = _loaded_by(
        "harness.scenario",
        *(f"harness.inside.{name}" for name in ("agent", "link_control", "smtp_server", "web.server")),
    )
    assert {"harness", "celery", "aiosmtpd"} <= loaded
    assert loaded & {"docker", "testcontainers", "pytest", "duckdb", "rich", "locust"} == set()


# ----------------------------------------------------------------------------------------- what is installed with it

DOORS = {
    # By the extra that brings what it needs; the empty one is what everybody has.
    # The shell imports the module of a command by its name.
    "": (
        "harness",
        "harness.__main__",
        "harness.commands.cli",
        *sorted({f"harness.commands.{place.partition(':')[0]}" for place in PLACES.values()}),
    ),
    "pytest": ("harness.plugin",),
    "pytest-celery": ("harness.celery_setup",),
    # The second is a process of its own.
    "load": ("harness.load", "harness.loadtest.stack_process"),
    # Imported when a stack asks for such a service.
    "services": ("harness.containers.postgresql", "harness.containers.redis"),
    # The app imports the tasks by their names, and `harness run` the scenario.
    "scenarios": (
        "scenarios.app",
        *(
            f"scenarios.{path.parent.name}.{name}"
            for path in sorted(ROOT.glob("scenarios/*/scenario.py"))
            for name in ("tasks", "scenario")
        ),
    ),
}
"""What a user begins with. What is inside a container is no door: the image has what that needs."""


def declared_in(project: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Per extra, the distributions that are installed with it, by their normalized names."""
    base = frozenset(_distribution(line) for line in project["dependencies"])
    extras = {name: base.union(map(_distribution, lines)) for name, lines in project["optional-dependencies"].items()}
    return {"": base, **extras}


def _distribution(requirement: str) -> str:
    named = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert named is not None, requirement
    return _normalized(named[0])


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def not_installed(imports: Imports, declared: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Yield what a door imports at any depth and its extra does not bring, one line each."""
    brought_by = packages_distributions()
    for extra, doors in DOORS.items():
        # A module that is behind a door of its own is imported on demand.
        others = {door for other in DOORS.values() for door in other}.difference(doors)
        for module in sorted(_reachable(imports, doors) - others):
            for top in sorted({name.partition(".")[0] for name in imports[module]}):
                if top in {"harness", "scenarios"} or top in sys.stdlib_module_names:
                    continue
                if declared[extra].isdisjoint(map(_normalized, brought_by.get(top, ()))):
                    yield f"{module} imports {top}, which [{extra}] does not bring"


def _reachable(imports: Imports, doors: tuple[str, ...]) -> set[str]:
    """Return the doors and every module that they import, directly or indirectly."""
    graph = _graph(imports)
    found: set[str] = set()
    ahead = list(doors)
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead += graph[module]
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def test_what_a_door_imports_is_installed_with_it(imports: Imports, project: dict[str, Any]) -> None:
    assert list(not_installed(imports, declared_in(project))) == []


def test_every_module_that_runs_on_the_users_side_is_behind_a_door(imports: Imports) -> None:
    behind = {module for doors in DOORS.values() for module in _reachable(imports, doors)}
    inside = {module for module in imports if within(module, ("harness.inside", "scenarios.web"))}
    packages = {module for module in imports if (ROOT / module.replace(".", "/")).is_dir()}
    # A Locust file of this repository, and an app that only workers import.
    assert imports.keys() - behind - inside - packages == {"scenarios.load", "harness.selftest.app"}


@pytest.mark.parametrize(
    ("extra", "gone", "said"),
    [
        ("", "hdrhistogram", "harness.measure.stages imports hdrh, which [] does not bring"),
        ("", "rich", "harness.console imports rich, which [] does not bring"),
        ("", "amqp", "harness.containers.rabbitmq imports amqp, which [] does not bring"),
        ("pytest", "pytest", "harness.plugin imports pytest, which [pytest] does not bring"),
        ("load", "flask", "harness.loadtest.locust_page imports flask, which [load] does not bring"),
        ("pytest-celery", "pytest-celery", "harness.celery_setup imports pytest_celery"),
        ("scenarios", "jinja2", "scenarios.emails.receipt imports jinja2, which [scenarios] does not bring"),
    ],
)
def test_a_dependency_that_is_not_declared_is_reported(
    imports: Imports, project: dict[str, Any], extra: str, gone: str, said: str
) -> None:
    declared = declared_in(project)
    assert gone in declared[extra]
    found = list(not_installed(imports, declared | {extra: declared[extra] - {gone}}))
    assert any(line.startswith(said) for line in found), found
