"""What may lose or double the tasks of a project, as its files tell. Each rule has a project that breaks it."""

from pathlib import Path

import pytest

from harness.project.app_tasks import tasks_in
from harness.project.risks import Outlook
from harness.project.source_files import Sources

SAFE = """
from celery import Celery
from kombu import Queue

app = Celery("shop")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"confirm_publish": True},
    task_time_limit=5 * 60,
    task_queues=[Queue("mails", durable=True)],
    beat_schedule={"nightly": {"task": "shop.mail"}, "hourly": {"task": "shop.mail"}},
    accept_content=["json"],
)

@app.task(name="shop.mail", max_retries=3)
def mail(address):
    mail.apply_async(countdown=60)
"""


def risks(tmp_path: Path, text: str = SAFE, **more: str) -> dict[str, str]:
    """Return what was seen of each setting that is a risk, in a project with this module `shop` and more files."""
    (tmp_path / "shop.py").write_text(text)
    for name, content in more.items():
        (tmp_path / f"{name}.py").write_text(content)
    return {risk.setting: risk.seen for risk in Outlook.of(Sources(tmp_path)).risks}


def test_a_careful_project_has_none(tmp_path: Path) -> None:
    assert risks(tmp_path) == {}


@pytest.mark.parametrize(
    ("old", "new", "setting", "seen"),
    [
        ("task_acks_late=True", "task_acks_late=False", "task_acks_late", "False for shop.mail (shop.py:7)"),
        ("    task_acks_late=True,\n", "", "task_acks_late", "False for shop.mail (not set)"),
        ("max_retries=3", "acks_late=False", "task_acks_late", "False for shop.mail (shop.py:17)"),
        (
            "    task_reject_on_worker_lost=True,\n",
            "",
            "task_reject_on_worker_lost",
            "False with late acknowledgement for shop.mail (not set)",
        ),
        (
            "    worker_prefetch_multiplier=1,\n",
            "",
            "worker_prefetch_multiplier",
            "4, Celery's default, with late acknowledgement (not set)",
        ),
        (
            "multiplier=1",
            "multiplier=0",
            "worker_prefetch_multiplier",
            "0, which is without a limit, with late acknowledgement (shop.py:9)",
        ),
        (
            '{"confirm_publish": True}',
            '{"confirm_publish": False}',
            "broker_transport_options",
            "without confirm_publish (shop.py:10)",
        ),
        (
            '{"confirm_publish": True}',
            "dict(max_retries=3)",
            "broker_transport_options",
            "without confirm_publish (shop.py:10)",
        ),
        ("    task_time_limit=5 * 60,\n", "", "task_time_limit", "none for shop.mail (not set)"),
        ("max_retries=3", "max_retries=None", "max_retries", "None for shop.mail"),
        ("durable=True", "durable=False", "durable", "False for a queue (shop.py:12)"),
        ("durable=True", "delivery_mode=1", "delivery_mode", "1 for a queue (shop.py:12)"),
        (
            "accept_content=",
            'task_default_delivery_mode="transient", accept_content=',
            "task_default_delivery_mode",
            "transient (shop.py:14)",
        ),
        ('"hourly"', '"nightly"', "beat_schedule", "more than one entry is named nightly"),
        (
            "def mail",
            'def beat(sender, **_):\n    sender.add_periodic_task(60, mail.s(), name="hourly")\n\ndef mail',
            "beat_schedule",
            "more than one entry is named hourly",
        ),
        ('["json"]', '["json", "pickle"]', "accept_content", "pickle (shop.py:14)"),
        ("accept_content=", 'result_serializer="pickle", accept_content=', "result_serializer", "pickle (shop.py:14)"),
        ("countdown=60", "countdown=2 * 3600", "countdown", "7200 s (shop.py:19)"),
        (
            "accept_content=",
            'result_expires=3600, timezone="Europe/Berlin", accept_content=',
            "result_expires",
            "3600 s with the zone Europe/Berlin (shop.py:14)",
        ),
        (
            "accept_content=",
            "result_expires=3600, enable_utc=False, accept_content=",
            "result_expires",
            "3600 s with the zone of the machine (shop.py:14)",
        ),
    ],
)
def test_each_is_named_with_its_place(tmp_path: Path, old: str, new: str, setting: str, seen: str) -> None:
    assert SAFE.count(old) == 1
    assert risks(tmp_path, SAFE.replace(old, new)) == {setting: seen}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("task_acks_late=True", "task_acks_late=settings.LATE"),
        ('{"confirm_publish": True}', "options()"),
        ("task_reject_on_worker_lost=True", "task_retry_on_worker_lost=True"),
        ("    task_time_limit=5 * 60,\n", "    task_time_limit=settings.LIMIT,\n"),
        ("max_retries=3", "max_retries=retries()"),
        ("accept_content=", 'result_expires=3600, timezone="UTC", accept_content='),
        ("accept_content=", 'result_expires=7 * 24 * 3600, timezone="Europe/Berlin", accept_content='),
        ("accept_content=", 'result_expires=timedelta(days=7), timezone="Europe/Berlin", accept_content='),
        ("accept_content=", 'result_expires=timedelta(fortnights=1), timezone="Europe/Berlin", accept_content='),
        ("countdown=60", "countdown=delay"),
        ("mail.apply_async(countdown=60)", "Game(countdown=3600)"),
        ("    task_time_limit=5 * 60,\n", "    task_soft_time_limit=60,\n"),
        ("max_retries=3", "acks_late=None, max_retries=3"),
        ("task_acks_late=True", 'task_annotations={"*": {"acks_late": True}}'),
        ("task_acks_late=True", 'task_annotations={"shop.mail": {"acks_late": True}}'),
        ("task_acks_late=True", "task_annotations=annotations()"),
        ("task_acks_late=True", 'task_annotations={"*": annotation()}'),
        ("worker_prefetch_multiplier=1", "worker_prefetch_multiplier=1 / 0"),
    ],
)
def test_what_is_calculated_or_harmless_is_none(tmp_path: Path, old: str, new: str) -> None:
    assert SAFE.count(old) == 1
    assert risks(tmp_path, SAFE.replace(old, new)) == {}


def test_an_annotation_counts_more_than_the_tasks_own_option_and_the_one_of_all_the_most(tmp_path: Path) -> None:
    early = '{"shop.mail": {"acks_late": True}, "*": {"acks_late": False}}'
    text = SAFE.replace("task_acks_late=True", f"task_annotations={early}").replace("max_", "acks_late=True, max_")
    assert list(risks(tmp_path, text)) == ["task_acks_late"]
    other = text.replace('shop.mail": {', 'shop.other": {').replace('"*"', '"shop.third"')
    assert risks(tmp_path, other) == {}


@pytest.mark.parametrize(
    ("old", "new"), [("max_retries=3", "base=Late, max_retries=3"), ('Celery("shop")', 'Celery("shop", task_cls=Late)')]
)
def test_what_a_class_of_its_own_may_say_is_not_known(tmp_path: Path, old: str, new: str) -> None:
    early = SAFE.replace("task_acks_late=True", "task_acks_late=False")
    assert "task_acks_late" in risks(tmp_path, early)
    assert risks(tmp_path, early.replace(old, new)) == {}
    own = early.replace(old, new).replace("max_retries=3", "acks_late=False, max_retries=3")
    assert "task_acks_late" in risks(tmp_path, own)


def test_a_quorum_queue_has_no_long_countdown_to_fear(tmp_path: Path) -> None:
    text = SAFE.replace("countdown=60", "countdown=2 * 3600")
    assert list(risks(tmp_path, text)) == ["countdown"]
    quorum = text.replace("accept_content", 'task_default_queue_type="quorum", accept_content')
    assert risks(tmp_path, quorum) == {}


def test_the_tests_of_a_project_are_not_read(tmp_path: Path) -> None:
    assert risks(tmp_path, test_shop=SAFE.replace("=True", "=False")) == {}


BARE = """
from celery import Celery
app = Celery("shop")
{configured}
@app.task(name="shop.mail")
def mail(): ...
"""


@pytest.mark.parametrize(
    ("configured", "settings"),
    [
        ("app.conf.task_acks_late = True\n", ""),
        ('app.conf["task_acks_late"] = True\n', ""),
        ('app.conf.update({"task_acks_late": True})\n', ""),
        ("app.conf.update(dict(task_acks_late=True))\n", ""),
        ('app.config_from_object("configuration")\n', "task_acks_late = True\nbroker_url = 'amqp://'\n"),
        ('app.config_from_object("configuration:Live")\n', "class Live:\n    task_acks_late = True\n"),
        ('app.config_from_object("configuration.Live")\n', "class Live:\n    task_acks_late = True\n"),
        ("app.config_from_object(configuration)\n", "task_acks_late = True\n"),
        ('app.config_from_object("configuration")\n', "task_acks_late: bool = True\n"),
        ("CELERY_TASK_ACKS_LATE: bool = True\n", ""),
        ("class Live:\n    task_acks_late = True\napp.config_from_object(Live)\n", ""),
        (
            "from configuration import Live\napp.config_from_object(Live())\n",
            "class Live:\n    task_acks_late = True\n",
        ),
        ('app.config_from_object("django.conf:settings", namespace="CELERY")\n', "CELERY_TASK_ACKS_LATE = True\n"),
        ('app.config_from_object("django.conf:settings")\n', "CELERY_ACKS_LATE = True\n"),
        (
            'from django.conf import settings\napp.config_from_object(settings, namespace="CELERY")\n',
            "CELERY_TASK_ACKS_LATE = True\n",
        ),
        ("flask.config.from_mapping(CELERY=dict(task_acks_late=True))\n", ""),
        ('flask.config["CELERY"] = {"task_acks_late": True}\napp.config_from_object(flask.config["CELERY"])\n', ""),
    ],
)
def test_a_setting_is_found_wherever_it_is_said(tmp_path: Path, configured: str, settings: str) -> None:
    assert "task_acks_late" in risks(tmp_path, BARE.format(configured=""))
    found = risks(tmp_path, BARE.format(configured=configured), configuration=settings)
    assert "task_acks_late" not in found
    assert "task_reject_on_worker_lost" in found


@pytest.mark.parametrize(
    "configured",
    [
        "app.conf.update(**OTHER)\n",
        "app.conf.update(OTHER)\n",
        'app.conf.update({"timezone": "UTC", **OTHER})\n',
        "app.conf.update(dict(OTHER))\n",
        'app.config_from_envvar("SETTINGS")\n',
        "app.config_from_object(choose())\n",
        'app.config_from_object("of_another_project")\n',
        'app.config_from_object("django.conf:settings", namespace="SHOP")\n',
    ],
)
def test_a_setting_that_may_be_said_where_nobody_can_read_it_is_not_known(tmp_path: Path, configured: str) -> None:
    assert "task_acks_late" in risks(tmp_path, BARE.format(configured=""))
    assert risks(tmp_path, BARE.format(configured=configured)) == {}
    assert "task_acks_late (shop.py:4)" in Outlook.of(Sources(tmp_path)).unknown


def test_a_name_elsewhere_is_no_setting(tmp_path: Path) -> None:
    elsewhere = "publish(task_acks_late=True)\nclass Row:\n    task_acks_late = True\n"
    assert "task_acks_late" in risks(tmp_path, BARE.format(configured=elsewhere), models=elsewhere)


def test_a_setting_that_differs_from_place_to_place_is_not_known(tmp_path: Path) -> None:
    text = BARE.format(configured="app.conf.task_acks_late = True\n")
    found = risks(tmp_path, text, other="app.conf.task_acks_late = False\n")
    assert not {"task_acks_late", "task_reject_on_worker_lost"} & found.keys()
    assert Outlook.of(Sources(tmp_path)).unknown == ("task_acks_late (other.py:1, shop.py:4)",)


def test_what_is_calculated_is_named(tmp_path: Path) -> None:
    risks(tmp_path, SAFE.replace("task_acks_late=True", "task_acks_late=settings.LATE"))
    assert Outlook.of(Sources(tmp_path)).unknown == ("task_acks_late (shop.py:7)",)


def test_a_risk_of_the_app_and_of_decorators_has_the_places_of_both(tmp_path: Path) -> None:
    tasks = "@app.task\ndef one(): ...\n@app.task(acks_late=False)\ndef two(): ...\n"
    text = BARE.format(configured=f"app.conf.task_acks_late = False\n{tasks}")
    assert risks(tmp_path, text)["task_acks_late"] == "False for shop.one, shop.two, shop.mail (shop.py:4; shop.py:7)"


def test_many_tasks_are_shortened(tmp_path: Path) -> None:
    tasks = "".join(f"@app.task\ndef mail{number}(): ...\n" for number in range(5))
    assert risks(tmp_path, BARE.format(configured=tasks))["task_acks_late"] == (
        "False for shop.mail0, shop.mail1, shop.mail2 and 3 more (not set)"
    )


def unknown(tmp_path: Path) -> tuple[str, ...]:
    return Outlook.of(Sources(tmp_path)).unknown


@pytest.mark.parametrize(
    ("configured", "seen"),
    [
        ("if DEBUG:\n    app.conf.task_acks_late = True\n", "task_acks_late (shop.py:5 if DEBUG)"),
        ("if DEBUG:\n    pass\nelse:\n    app.conf.update(task_acks_late=True)\n", "(shop.py:7 if not (DEBUG))"),
        (
            "if DEBUG:\n    if FAST:\n        app.conf.task_acks_late = True\n",
            "task_acks_late (shop.py:6 if FAST)",
        ),
        (
            "app.conf.task_acks_late = True\nif DEBUG:\n    app.conf.task_acks_late = False\n",
            "task_acks_late (shop.py:4, shop.py:6 if DEBUG)",
        ),
    ],
)
def test_a_setting_under_a_condition_is_not_certain_and_the_condition_is_named(
    tmp_path: Path, configured: str, seen: str
) -> None:
    assert "task_acks_late" not in risks(tmp_path, BARE.format(configured=configured))
    assert seen in " ".join(unknown(tmp_path))


@pytest.mark.parametrize(
    "configured",
    [
        "if DEBUG:\n    app.conf.task_acks_late = False\n",
        "if DEBUG:\n    print(1)\napp.conf.task_acks_late = False\n",
        "if DEBUG:\n    app.conf.task_acks_late = False\nelse:\n    app.conf.task_acks_late = False\n",
    ],
)
def test_a_condition_that_changes_nothing_leaves_a_risk_certain(tmp_path: Path, configured: str) -> None:
    assert "task_acks_late" in risks(tmp_path, BARE.format(configured=configured))
    assert unknown(tmp_path) == ()


def test_entries_of_two_branches_do_not_replace_each_other(tmp_path: Path) -> None:
    branches = 'if DEBUG:\n    app.conf.beat_schedule = {"a": 1}\nelse:\n    app.conf.beat_schedule = {"a": 2}\n'
    assert "beat_schedule" not in risks(tmp_path, BARE.format(configured=branches))
    twice = 'app.conf.beat_schedule = {"a": 1}\napp.conf.beat_schedule = {"a": 2}\n'
    assert "beat_schedule" in risks(tmp_path, BARE.format(configured=twice))


LIVE = 'app.config_from_object("live")\n'


@pytest.mark.parametrize(
    "live",
    [
        "from base import *\n",
        "from .base import *\n",
        "from base import task_acks_late\n",
        "from other import *\n",
        "from base import *\ntask_acks_late = True\n",
    ],
)
def test_a_configuration_has_what_it_imports_from_a_module_of_the_project(tmp_path: Path, live: str) -> None:
    said = "task_acks_late = True\nimport celery\n"
    found = risks(
        tmp_path,
        BARE.format(configured=LIVE),
        live=f"import celery\n{live}",
        base=said,
        other=f"from base import *\n{said}",
    )
    assert "task_acks_late" not in found
    assert unknown(tmp_path) == ()


@pytest.mark.parametrize(
    ("live", "base"),
    [
        # What it says itself is in the place of what it imports.
        ("from base import *\ntask_acks_late = False\n", "task_acks_late = True\n"),
        ("from base import worker_prefetch_multiplier\n", "task_acks_late = True\nworker_prefetch_multiplier = 1\n"),
        ("import base\n", "task_acks_late = True\n"),
        ("from elsewhere import *\n", "task_acks_late = True\n"),
    ],
)
def test_what_a_configuration_does_not_import_is_none_of_its_settings(tmp_path: Path, live: str, base: str) -> None:
    found = risks(tmp_path, BARE.format(configured=LIVE), live=f"import celery\n{live}", base=base)
    assert "task_acks_late" in found
    assert unknown(tmp_path) == ()


def test_what_is_imported_and_said_under_a_condition_is_not_known(tmp_path: Path) -> None:
    live = "from base import *\nif DEBUG:\n    task_acks_late = False\n"
    assert "task_acks_late" not in risks(
        tmp_path, BARE.format(configured=LIVE), live=live, base="task_acks_late = True\n"
    )
    assert unknown(tmp_path) == ("task_acks_late (base.py:1, live.py:3 if DEBUG)",)


FACTORY = """
from celery import Celery

def make():
    app = Celery("shop")
    app.conf.update(task_acks_late=False)

    @app.task(max_retries=3)
    def inner(): ...

    @other.register
    def neither(): ...

    return app

class Kept:
    @app.task
    def method(self): ...
"""


def test_a_task_inside_of_a_function_is_seen_and_is_not_sent_unasked(tmp_path: Path) -> None:
    found = risks(tmp_path, FACTORY)
    assert found["task_acks_late"] == "False for shop.inner (shop.py:6)"
    (task,) = tasks_in(Sources(tmp_path))
    assert (task.function, task.is_harmless) == ("inner", False)


@pytest.mark.parametrize(
    ("broker", "advised"),
    [
        ('"amqp://broker"', True),
        ("BROKER", True),
        ('os.environ["BROKER"]', True),
        ('"redis://broker/0"', False),
        ('os.environ.get("BROKER", "rediss://broker")', False),
        ('"redis://a" if FAST else "amqp://b"', True),
    ],
)
def test_confirms_are_advised_for_a_broker_that_has_them(tmp_path: Path, broker: str, *, advised: bool) -> None:
    bare = BARE.format(configured=f"app.conf.broker_url = {broker}\n")
    assert ("broker_transport_options" in risks(tmp_path, bare)) is advised
    given = BARE.format(configured="").replace('Celery("shop")', f'Celery("shop", broker={broker})')
    assert broker in given
    assert ("broker_transport_options" in risks(tmp_path, given)) is advised
