"""What a project says of its settings, by imports, conditions and order: each beside one that stays as it is."""

import ast
from pathlib import Path

import pytest

from harness.project.celery_settings import literal
from harness.project.risks import Outlook
from harness.project.source_files import Sources

APP = """
from celery import Celery
app = Celery("shop")
{configured}
@app.task(name="shop.mail")
def mail(): ...
"""
LIVE = APP.format(configured='app.config_from_object("live")')
EARLY, LATE = "task_acks_late = False\n", "task_acks_late = True\n"
BY_DEFAULT = "False for shop.mail (not set)"


def outlook(tmp_path: Path, shop: str, **more: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each risk of a project with this module `shop` and more files, with what was seen; and what is unknown."""
    for name, content in {"shop": shop, **more}.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    read = Outlook.of(Sources(tmp_path))
    return {risk.setting: risk.seen for risk in read.risks}, read.unknown


def early(tmp_path: Path, live: str, **more: str) -> tuple[str | None, tuple[str, ...]]:
    """Return what was seen of early acknowledgement in an app with this configuration `live`, and what is unknown."""
    found, unknown = outlook(tmp_path, LIVE, live=f"import celery\n{live}", **more)
    return found.get("task_acks_late"), unknown


@pytest.mark.parametrize("statement", ["from .. import x", "from ... import x", "from ....far import *"])
def test_an_import_from_above_the_project_brings_nothing(tmp_path: Path, statement: str) -> None:
    shop = APP.format(configured='app.config_from_object("app.live")')
    found, unknown = outlook(tmp_path, shop, **{"app/live": f"import celery\n{statement}\n"})
    assert found["task_acks_late"] == BY_DEFAULT
    assert unknown == ()


@pytest.mark.parametrize("statement", ["from . import x", "from .. import x", "from ..base import *"])
def test_so_does_one_in_the_projects_folder_itself(tmp_path: Path, statement: str) -> None:
    assert early(tmp_path, f"{statement}\n", base=LATE) == (BY_DEFAULT, ())


@pytest.mark.parametrize("statement", ["from ..base import *", "from .. import task_acks_late"])
def test_an_import_from_the_folder_above_counts_if_it_is_in_the_project(tmp_path: Path, statement: str) -> None:
    shop = APP.format(configured='app.config_from_object("app.live")')
    (tmp_path / "__init__.py").write_text(LATE)
    found, unknown = outlook(tmp_path, shop, base=LATE, **{"app/live": f"import celery\n{statement}\n"})
    assert ("task_acks_late" in found, unknown) == (False, ())


def test_a_condition_that_is_too_long_for_words_is_still_one(tmp_path: Path) -> None:
    long = " + ".join(["1"] * 900)
    shop = APP.format(configured=f"if {long}:\n    app.conf.task_acks_late = True\nelse:\n    pass")
    found, unknown = outlook(tmp_path, shop)
    assert "task_acks_late" not in found
    assert "task_acks_late (shop.py:5 if …)" in unknown


@pytest.mark.parametrize(("terms", "value"), [(100, 100), (3_000, ...)])
def test_a_sum_that_is_too_long_is_not_known(terms: int, value: object) -> None:
    node: ast.expr = ast.Constant(value=1)
    for _ in range(terms - 1):
        node = ast.BinOp(left=node, op=ast.Add(), right=ast.Constant(value=1))
    assert literal(node) == value


@pytest.mark.parametrize(
    ("live", "local", "seen", "unknown"),
    [
        (f"{EARLY}from local import *\n", LATE, None, ()),
        (f"from local import *\n{EARLY}", LATE, "False for shop.mail (live.py:3)", ()),
        (f"{LATE}from local import *\n", EARLY, "False for shop.mail (local.py:1)", ()),
        (f"from local import *\n{LATE}", EARLY, None, ()),
        (f"{EARLY}from local import task_acks_late\n", LATE, None, ()),
        (f"{EARLY}from local import late as task_acks_late\n", "late = True\nimport celery\n", None, ()),
        (f"{EARLY}from local import task_acks_late as other\n", LATE, "False for shop.mail (live.py:2)", ()),
        # An import that says nothing of it leaves it as it is.
        (f"{EARLY}from local import *\n", "import celery\n", "False for shop.mail (live.py:2)", ()),
        (f"{EARLY}{LATE}", "", None, ()),
        (f"{LATE}{EARLY}", "", "False for shop.mail (live.py:3)", ()),
        # What only one of two lines surely says.
        (
            f"{EARLY}from local import *\n",
            f"if FAST:\n    {LATE}",
            None,
            ("task_acks_late (live.py:2, local.py:2 if FAST)",),
        ),
    ],
)
def test_the_last_line_that_surely_says_a_setting_wins(
    tmp_path: Path, live: str, local: str, seen: str | None, unknown: tuple[str, ...]
) -> None:
    assert early(tmp_path, live, local=local) == (seen, unknown)


def test_of_two_files_that_an_import_may_mean_neither_is_certain(tmp_path: Path) -> None:
    live = f"{EARLY}from local import *\n"
    seen, unknown = early(tmp_path, live, **{"a/local": LATE, "b/local": "import celery\n"})
    assert (seen, unknown) == (None, ("task_acks_late (live.py:2, a/local.py:1)",))
    assert early(tmp_path, live, **{"a/local": LATE, "b/local": LATE}) == (None, ())


def test_modules_that_import_each_other_come_to_an_end(tmp_path: Path) -> None:
    seen, unknown = early(tmp_path, "from base import *\n", base=f"from live import *\n{EARLY}")
    assert (seen, unknown) == ("False for shop.mail (base.py:2)", ())


def test_two_classes_of_a_configuration_do_not_replace_each_other(tmp_path: Path) -> None:
    classes = f"class Fast:\n    {EARLY}class Safe:\n    {LATE}"
    assert early(tmp_path, classes) == (None, ("task_acks_late (live.py:3, live.py:5)",))
    one = f"class Safe:\n    {EARLY}    {LATE}"
    assert early(tmp_path, one) == (None, ())


@pytest.mark.parametrize(
    ("live", "unknown"),
    [
        ("if DEV:\n    from dev import *\n", "task_acks_late (dev.py:1 if DEV)"),
        ("if DEV:\n    pass\nelse:\n    from dev import task_acks_late\n", "task_acks_late (dev.py:1 if not (DEV))"),
        (f"{EARLY}if DEV:\n    from dev import *\n", "task_acks_late (dev.py:1 if DEV, live.py:2)"),
        (f"if DEV:\n    from dev import *\n{EARLY}", None),
        ("from dev import *\n", ""),
    ],
)
def test_an_import_under_a_condition_is_not_certain(tmp_path: Path, live: str, unknown: str | None) -> None:
    seen, named = early(tmp_path, live, dev=LATE)
    # Of what is said in any case below the import, the condition decides nothing.
    assert (seen is None) is (unknown is not None)
    assert named == ((unknown,) if unknown else ())


def test_a_condition_holds_for_what_the_imported_module_imports(tmp_path: Path) -> None:
    more = {"dev": "from base import *\n", "base": f"if FAST:\n    {LATE}worker_prefetch_multiplier = 1\n"}
    _, unknown = early(tmp_path, "if DEV:\n    from dev import *\n", **more)
    assert unknown == ("task_acks_late (base.py:2 if FAST)", "worker_prefetch_multiplier (base.py:3 if DEV)")


@pytest.mark.parametrize(
    ("configured", "setting", "is_unknown"),
    [
        ("enable_utc = False", "enable_utc", True),
        ("worker_prefetch_multiplier = 0", "worker_prefetch_multiplier", True),
        ("task_acks_late = 0", "task_acks_late", True),
        ("task_acks_late = False", "task_acks_late", False),
        ("task_reject_on_worker_lost = False", "task_reject_on_worker_lost", False),
    ],
)
def test_what_a_condition_turns_off_is_certain_only_if_it_is_off_by_default(
    tmp_path: Path, configured: str, setting: str, *, is_unknown: bool
) -> None:
    shop = APP.format(configured=f"app.conf.result_expires = 3600\nif DEV:\n    app.conf.{configured}")
    found, unknown = outlook(tmp_path, shop)
    assert unknown == ((f"{setting} (shop.py:6 if DEV)",) if is_unknown else ())
    assert "result_expires" not in found
    certain, _ = outlook(tmp_path, shop.replace("if DEV:", "if_dev = 1").replace("    app", "app"))
    assert ("result_expires" in certain) is (setting == "enable_utc")


@pytest.mark.parametrize(
    ("live", "seen", "unknown"),
    [
        (f"try:\n    {EARLY}except ImportError:\n    pass\n", "live.py:3", ""),
        (f"try:\n    from local import *\nexcept ImportError:\n    {EARLY}", "", "live.py:5 if ImportError is raised"),
        ("try:\n    from local import *\nexcept ImportError:\n    pass\n", "", None),
        (f"try:\n    import x\nexcept:\n    {EARLY[:-6]}True\n", "", "live.py:5 if an error is raised"),
        (f"try:\n    import x\nexcept OSError:\n    pass\nelse:\n    {EARLY}", "live.py:7", ""),
        (f"try:\n    import x\nfinally:\n    {EARLY}", "live.py:5", ""),
        (f"with suppress(ImportError):\n    {EARLY}", "live.py:3", ""),
        ("with suppress(ImportError):\n    from local import *\n", "", None),
        (f"try:\n    import x\nexcept* OSError:\n    {EARLY[:-6]}True\n", "", "live.py:5 if OSError is raised"),
        # A function's variable is no setting.
        (f"def made():\n    {LATE}", "not set", ""),
    ],
)
def test_a_setting_in_a_try_or_with_is_found(tmp_path: Path, live: str, seen: str, unknown: str | None) -> None:
    found, named = early(tmp_path, live, local=LATE)
    assert found == (f"False for shop.mail ({seen})" if seen else None)
    assert bool(named) is bool(unknown)
    assert (unknown or "") in " ".join(named)


def test_what_an_app_says_when_an_error_is_handled_is_not_certain(tmp_path: Path) -> None:
    shop = APP.format(configured="try:\n    import x\nexcept OSError:\n    app.conf.task_acks_late = True")
    assert "task_acks_late (shop.py:7 if OSError is raised)" in outlook(tmp_path, shop)[1]
    found, unknown = outlook(tmp_path, shop.replace("except OSError", "finally"))
    assert (unknown, "task_acks_late" in found) == ((), False)


@pytest.mark.parametrize(
    ("package", "is_late"),
    [("from .base import *\n", True), ("from .base import  *  # noqa\n", True), ("from .base import other\n", False)],
)
def test_a_package_that_only_imports_all_of_another_module_is_read(
    tmp_path: Path, package: str, *, is_late: bool
) -> None:
    shop = APP.format(configured='app.config_from_object("conf")')
    found, unknown = outlook(tmp_path, shop, **{"conf/__init__": package, "conf/base": LATE})
    assert "task_acks_late" not in found
    # What is not read may say anything.
    assert any(one.startswith("task_acks_late") for one in unknown) is not is_late


@pytest.mark.parametrize(
    ("brokers", "advised"),
    [
        ('if TESTING:\n    B = "memory://"\nelse:\n    B = os.environ["BROKER"]\n', True),
        ('if TESTING:\n    B = "memory://"\n', True),
        ('B = os.environ["BROKER"]\nif TESTING:\n    B = "memory://"\n', True),
        ('B = "redis://broker"\nif PRODUCTION:\n    B = os.environ["BROKER"]\n', True),
        ('B = "redis://broker"\nif PRODUCTION:\n    B = "amqp://broker"\n', True),
        ('B = "redis://broker"\nif TESTING:\n    B = "memory://"\n', False),
        ('B = f"redis://{HOST}"\n', False),
        ('B = None\nB = "redis://broker"\n', False),
        ("B = None\n", True),
    ],
)
def test_a_broker_that_may_be_another_one_is_advised_to_confirm(tmp_path: Path, brokers: str, *, advised: bool) -> None:
    shop = APP.format(configured=brokers.replace("B =", "app.conf.broker_url ="))
    assert ("broker_transport_options" in outlook(tmp_path, shop)[0]) is advised


@pytest.mark.parametrize(
    ("configured", "known"),
    [
        ("app.conf.update(dict(**OTHER))", False),
        ("app.conf.update(dict(timezone='UTC', **OTHER))", False),
        ('app.conf.update([("task_acks_late", True)])', False),
        ("app.conf.update(dict(timezone='UTC'))", True),
        ("app.conf.update(dict())", True),
    ],
)
def test_a_dictionary_of_unknown_keywords_may_say_any_setting(tmp_path: Path, configured: str, *, known: bool) -> None:
    found, unknown = outlook(tmp_path, APP.format(configured=configured))
    assert found.get("task_acks_late") == (BY_DEFAULT if known else None)
    assert ("task_acks_late (shop.py:4)" in unknown) is not known


@pytest.mark.parametrize(("options", "advised"), [("dict(**OTHER)", False), ("dict(max_retries=3)", True)])
def test_options_of_unknown_keywords_may_ask_for_confirms(tmp_path: Path, options: str, *, advised: bool) -> None:
    found, _ = outlook(tmp_path, APP.format(configured=f"app.conf.broker_transport_options = {options}"))
    assert ("broker_transport_options" in found) is advised
