"""Does a Python sample use what exists? Its imports, its names, and what it does with a stack and the like.

The harness's own names are followed by their annotations: an attribute that a class does not have is an error, and so
is an argument that a function does not take. What has no annotation is not followed any further.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import harness
import harness.faults
import harness.project.needs
import harness.wait
from harness import plugin
from harness.audit.results import Results
from harness.containers.mailbox import Mailbox
from harness.producer import Producer
from harness.stack import Stack

READERS_OWN = ("shop",)
"""Packages that a reader has, and this repository has not."""
FIXTURES: Mapping[str, type] = {"stack": Stack, "mailbox": Mailbox, "results": Results, "producer": Producer}
OTHERS_FIXTURES = ("client", "celery_worker", "celery_harness_worker")
API: Mapping[str, Any] = {
    **{name: getattr(harness, name) for name in harness.__all__},
    **{name: getattr(harness.faults, name) for name in harness.faults.__all__},
    **{name: getattr(harness.project.needs, name) for name in ("EffectQuery", "Mount", "Service")},
    "wait_until": harness.wait.wait_until,
}
"""What a fragment may use without an import: pages say where these are from."""
_MISSING = object()
_MODULES = ("logging", "pytest", "time")
"""The same, of other projects."""


@dataclass(frozen=True)
class Instance:
    """A value of which only the type is known; the type may have arguments."""

    of: Any


@dataclass(frozen=True)
class Thing:
    """A value that is known: a module, a class or a function."""

    value: Any
    bound: bool = False
    """True for a method, whose first argument is there already."""


Known = Instance | Thing | None


def marker_arguments() -> set[str]:
    """Return the arguments that the marker `stack` takes."""
    (call,) = ast.parse(plugin.MARKER.partition("):")[0] + ")").body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    return {str(keyword.arg) for keyword in call.value.keywords}


class Checker(ast.NodeVisitor):
    """Collects what is wrong with the samples of one page, which are read in their order."""

    def __init__(self) -> None:
        """Begin a page."""
        self.wrong: list[str] = []
        self.seen: dict[str, Known] = {name: Thing(value) for name, value in API.items()}
        self.seen |= dict.fromkeys((*_MODULES, *OTHERS_FIXTURES))
        self.seen |= {name: Instance(kind) for name, kind in FIXTURES.items()}

    def check(self, text: str) -> list[str]:
        """Return what is wrong with one sample."""
        self.wrong = []
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            return [f"line {error.lineno}: {error.msg}"]
        # A name may be used in a function before the line that binds it.
        for name in _bound(tree) - self.seen.keys():
            self.seen[name] = None
        self.visit(tree)
        return self.wrong

    # ------------------------------------------------------------------------------------------------ what binds

    def visit_Import(self, node: ast.Import) -> None:
        """Resolve the modules."""
        for alias in node.names:
            self.seen[alias.asname or alias.name.partition(".")[0]] = None
            self._module(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Resolve the names; those of others only if their package is installed here."""
        module = self._module(str(node.module))
        for alias in node.names:
            name = alias.asname or alias.name
            self.seen[name] = None
            if module is None:
                continue
            if hasattr(module, alias.name):
                self.seen[name] = Thing(getattr(module, alias.name))
            else:
                self.wrong.append(f"{node.module} has no {alias.name}")

    def _module(self, name: str) -> Any:
        root = name.partition(".")[0]
        if root in READERS_OWN:
            return None
        # Locust's door patches what others have imported.
        if root in {"harness", "scenarios"} and name != "harness.load":
            try:
                return importlib.import_module(name)
            except ImportError as error:
                self.wrong.append(str(error))
                return None
        if root not in sys.stdlib_module_names and importlib.util.find_spec(root) is None:
            self.wrong.append(f"no module is named {root}")
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Give the arguments of a test what fixtures give."""
        for one in node.decorator_list:
            self.visit(one)
        before = dict(self.seen)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = FIXTURES.get(argument.arg)
            self.seen[argument.arg] = Instance(kind) if kind else None
        for statement in node.body:
            self.visit(statement)
        self.seen = before

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Look at each part of it."""
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Remember what is known of the value."""
        value = self.known(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.seen[target.id] = value

    def visit_With(self, node: ast.With) -> None:
        """Remember what a context gives."""
        for item in node.items:
            context = self.known(item.context_expr)
            if isinstance(item.optional_vars, ast.Name):
                self.seen[item.optional_vars.id] = _entered(context)
        for statement in node.body:
            self.visit(statement)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        """Look into a comprehension, whose names hide those around it."""
        before = dict(self.seen)
        for one in node.generators:
            self.visit(one.iter)
            self.seen |= dict.fromkeys(_bound(one.target))
            for condition in one.ifs:
                self.visit(condition)
        self.visit(node.elt)
        self.seen = before

    # ------------------------------------------------------------------------------------------------- what is used

    def visit_Name(self, node: ast.Name) -> None:
        """Look at a name."""
        self.known(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Look at an attribute."""
        self.known(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        """Look at a list."""
        self.known(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        """Look at a set."""
        self.known(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        """Look at a generator."""
        self.known(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Look at a call."""
        self.known(node)

    def known(self, node: ast.expr) -> Known:
        """Return what is known of an expression's value, and note what is wrong in it."""
        match node:
            case ast.Name(id=name):
                if isinstance(node.ctx, ast.Load) and name not in self.seen and not hasattr(builtins, name):
                    self.wrong.append(f"line {node.lineno}: {name} is nowhere bound")
                return self.seen.get(name)
            case ast.Attribute(value=value, attr=attr):
                return self._attribute(self.known(value), attr, node.lineno)
            case ast.Subscript(value=value, slice=index):
                self.visit(index)
                return _item(self.known(value))
            case ast.Call():
                return self._call(node)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                self._comprehension(node)
                return None
        self.generic_visit(node)
        return None

    def _attribute(self, base: Known, attr: str, line: int) -> Known:
        if isinstance(base, Thing):
            if hasattr(base.value, attr):
                return Thing(getattr(base.value, attr))
            self.wrong.append(f"line {line}: {base.value.__name__} has no {attr}")
        if isinstance(base, Instance):
            kind = typing.get_origin(base.of) or base.of
            if isinstance(kind, type):
                found, value = _member(kind, attr)
                if not found:
                    self.wrong.append(f"line {line}: {kind.__name__} has no {attr}")
                return value
        return None

    def _call(self, node: ast.Call) -> Known:
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.visit(argument)
        said = {keyword.arg for keyword in node.keywords}
        if ast.unparse(node.func) == "pytest.mark.stack":
            self.wrong += [f"the marker stack takes no {name}" for name in sorted(map(str, said - marker_arguments()))]
            return None
        function = self.known(node.func)
        if not isinstance(function, Thing) or not callable(function.value):
            return None
        # A sample may leave arguments out, as in f(...); what it says has to fit.
        shown = [one for one in node.args if not (isinstance(one, ast.Constant) and one.value is ...)]
        if None not in said and not any(isinstance(one, ast.Starred) for one in shown):
            try:
                inspect.signature(function.value).bind_partial(
                    *[None] * (len(shown) + function.bound), **dict.fromkeys(map(str, said))
                )
            except TypeError as error:
                self.wrong.append(f"line {node.lineno}: {ast.unparse(node.func)}: {error}")
        return Instance(function.value) if isinstance(function.value, type) else _hinted(function.value, "return")


def _bound(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    return names | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def _hinted(owner: Any, name: str) -> Known:
    try:
        hint = typing.get_type_hints(owner).get(name)
    except (NameError, TypeError):
        return None  # The annotation is imported for the type checker alone.
    return None if hint is None or isinstance(hint, typing.TypeVar) else Instance(hint)


def _member(kind: type, name: str) -> tuple[bool, Known]:
    """Return whether an instance of a class has an attribute, and what is known of it."""
    found = inspect.getattr_static(kind, name, _MISSING)
    if found is not _MISSING:
        return True, _of_class(kind, name, found)
    for base in kind.__mro__:
        if name in vars(base).get("__annotations__", {}):
            return True, _hinted(base, name)
        if (told := _set_at_begin(base).get(name, _MISSING)) is not _MISSING:
            return True, Instance(told) if told else None
    # A class of others may make its attributes in any way.
    return not kind.__module__.startswith("harness"), None


def _of_class(kind: type, name: str, found: object) -> Known:
    """Return what is known of an attribute that the class itself has."""
    if isinstance(found, property):
        return _hinted(found.fget, "return")
    if inspect.isfunction(found):
        return Thing(found, bound=True)
    return None if isinstance(found, classmethod | staticmethod) else _hinted(kind, name)


def _set_at_begin(kind: type) -> dict[str, Any]:
    """Return the attributes that `__init__` sets, each with its annotation, or None if it has none."""
    begin = vars(kind).get("__init__")
    # What a dataclass sets has an annotation in the class, and its `__init__` has no source.
    if not inspect.isfunction(begin) or not kind.__module__.startswith("harness") or is_dataclass(kind):
        return {}
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse("if True:\n" + inspect.getsource(begin))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                found[target.attr] = None
                if isinstance(node, ast.AnnAssign):
                    # What is imported for the type checker alone is not known.
                    with contextlib.suppress(NameError):
                        found[target.attr] = eval(ast.unparse(node.annotation), vars(sys.modules[kind.__module__]))  # noqa: S307 - our own code.
    return found


def _entered(context: Known) -> Known:
    if not isinstance(context, Instance):
        return None
    arguments = typing.get_args(context.of)
    if arguments:
        return Instance(arguments[0]) if isinstance(arguments[0], type) else None
    entering = getattr(context.of, "__enter__", None)
    hint = _hinted(entering, "return") if entering else None
    return context if isinstance(hint, Instance) and hint.of is typing.Self else hint


def _item(base: Known) -> Known:
    if isinstance(base, Instance) and typing.get_origin(base.of) is list:
        return Instance(typing.get_args(base.of)[0])
    return None
