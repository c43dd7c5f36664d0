"""What the settings of a stack refuse, and what run.json keeps of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.project.needs import EffectQuery, Mount, Network
from harness.stack.stack_spec import StackSpec

Make = Callable[..., StackSpec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make the settings of an app whose folder has `src` and `shop.conf`."""
    (tmp_path / "src").mkdir()
    (tmp_path / "shop.conf").touch()

    def make(**settings: Any) -> StackSpec:
        return StackSpec(app="shop.app", app_folder=tmp_path, **settings)

    return make


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"workers": -1}, "-1 workers cannot be started"),
        ({"prepare": "python manage.py migrate"}, r"give a list, such as \['python manage.py migrate'\]"),
        ({"pythonpath": "src"}, "pythonpath is 'src'; give a list"),
        ({"queues": "mails"}, "queues is 'mails'; give a list"),
        ({"writable": "media"}, "writable is 'media'; give a list"),
        ({"pythonpath": ["absent"]}, "pythonpath names 'absent'"),
        ({"prepare": ["python manage.py migrate && true"]}, r"needs a shell.*as in sh -c 'python manage.py migrate &&"),
        ({"prepare": ["echo 'a"]}, "cannot be split into words: No closing quotation"),
        ({"prepare": [" "]}, "an empty command"),
        ({"writable": ["/var/media"]}, "writable names '/var/media'; give paths in the app's folder"),
        ({"writable": ["../media"]}, r"writable names '\.\./media'; give paths in the app's folder"),
        (
            {"env": {"SMTP": "{mail.host}"}},
            r"env\.SMTP asks for \{mail\.host\}, which no stack knows",
        ),
        ({"env": {"JSON": '{"a": 1}'}}, r"env\.JSON has a single \{ that belongs to no template: .* written twice"),
    ],
)
def test_settings_that_cannot_be_are_a_wrong_use(make: Make, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make(**settings)


@pytest.mark.parametrize(
    ("host", "inside", "reason"),
    [
        ("absent", "/etc/shop", "absent, which does not exist"),
        ("shop.conf", "etc/shop", "'etc/shop' for the inside; give an absolute path"),
        ("shop.conf", "/etc/../app", "give an absolute path"),
        ("shop.conf", "/", "give an absolute path"),
        ("src", "/app", "is the harness's own place"),
        ("src", "/harness/run/app", "is the harness's own place"),
        (
            "shop.conf",
            "/app/local.conf",
            r"has no local\.conf in whose place .* set writable=True",
        ),
    ],
)
def test_a_mount_that_cannot_be_is_a_wrong_use(make: Make, host: str, inside: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make(mounts=[Mount(host=Path(host), inside=inside)])


def test_a_mount_may_take_the_place_of_a_file_or_be_where_nodes_may_write(make: Make) -> None:
    make(mounts=[Mount(host=Path("shop.conf"), inside="/app/shop.conf")])
    make(mounts=[Mount(host=Path("shop.conf"), inside="/app/local.conf")], writable=True)
    make(mounts=[Mount(host=Path("shop.conf"), inside="/etc/shop/shop.conf")])


@pytest.mark.parametrize(
    ("writable", "paths"), [(False, ()), (True, None), (["media", "var/log"], ["media", "var/log"]), ([], [])]
)
def test_paths_or_all_of_it_can_be_writable(make: Make, writable: Any, paths: Any) -> None:
    assert make(writable=writable).writable_paths == paths


@pytest.mark.parametrize(
    ("database", "needs"),
    [
        (None, {}),
        ("db.sqlite3", {"writable": True}),
        ("data/shop.db", {"writable": ["media", "data"]}),
        ("/app/db.sqlite3", {"writable": ["db.sqlite3"]}),
        ("data/shop.db", {"mounts": [Mount(host=Path("src"), inside="/app/data", read_only=False)], "writable": True}),
        ("/harness/run/app/shop.db", {}),
    ],
)
def test_a_query_looks_into_a_file_that_nodes_can_write_to(make: Make, database: str | None, needs: Any) -> None:
    order = {"order": EffectQuery(query="SELECT 1", database=database)}
    make(effects=order, **needs)
    if database is not None and not database.startswith("/harness"):
        with pytest.raises(UsageError, match=r"effects\.order looks into .* where nothing may write: add the setting"):
            make(effects=order, writable=["logs"])


def test_run_json_has_the_settings_without_paths_of_the_machine_and_without_secrets(make: Make, tmp_path: Path) -> None:
    spec = make(
        pythonpath=["src"],
        image="shop:1",
        queues=["mails"],
        entrypoint=["celery", "--broker=geheim", "worker"],
        env={"KEY": "geheim"},
        settings={"task_acks_late": True, "security_key_password": "geheim"},
        prepare=["python manage.py migrate --password geheim"],
        writable=["media"],
        mounts=[Mount(host=tmp_path / "shop.conf", inside="/etc/shop.conf")],
        network=Network.OPEN,
        effects={"order": EffectQuery(query="SELECT number FROM orders WHERE token = 'geheim'")},
    )
    said = spec.to_json()
    assert said == {
        "app": "shop.app",
        "pythonpath": ["src"],
        "image": "shop:1",
        "build": None,
        "workers": 1,
        "options": None,
        "entrypoint": ["celery"],
        "queues": ["mails"],
        "mailbox": False,
        "env": ["KEY"],
        "settings": {"task_acks_late": True, "security_key_password": "***"},
        "prepare": ["python"],
        "writable": ["media"],
        "mounts": ["/etc/shop.conf"],
        "network": "open",
        "services": [],
        "own_broker": False,
        "broker_image": None,
        "small_disk": False,
        "movable_clocks": False,
        "results": "sqlite",
        "effects": ["order"],
        "link": False,
    }
    assert make().to_json()["network"] == "closed"


@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
def test_the_address_of_a_part_of_the_stack_cannot_be_overridden(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} cannot be overridden"):
        StackSpec(app="shop", app_folder=tmp_path, settings={name: "redis://elsewhere"})


@pytest.mark.parametrize("more", [{"small_disk": True}, {"broker_image": "rabbitmq:4"}])
def test_a_disk_or_an_image_of_a_broker_is_for_one_of_its_own(make: Make, more: Any) -> None:
    make(own_broker=True, **more)
    with pytest.raises(UsageError, match=r"is for a broker of the stack's own: add own_broker=True"):
        make(**more)
