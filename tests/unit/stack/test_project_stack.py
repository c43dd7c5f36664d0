"""From settings to a stack: what reaches it, and what is refused because nothing serves it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.containers.worker import DEFAULT_OPTIONS
from harness.errors import UsageError
from harness.project.schema import KEYS
from harness.project.settings import Mount, Network, Settings
from harness.stack.project_stack import UNSERVED, spec_of, unserved


def settings(folder: Path, said_by: str = "harness.toml: it", **said: Any) -> Settings:
    return Settings(folder=folder, **{"app": "shop.app", **said}, sources=dict.fromkeys(said, said_by))


def test_a_stack_is_what_the_settings_say(tmp_path: Path) -> None:
    made = spec_of(settings(tmp_path, workers=3, options=("-P", "solo"), env={"A": "{{}}"}), workers=1, mailbox=True)
    assert (made.app, made.app_folder, made.workers, made.mailbox) == ("shop.app", tmp_path, 3, True)
    assert (made.options, made.env) == (("-P", "solo"), {"A": "{}"})


def test_what_nobody_said_is_the_doors_own(tmp_path: Path) -> None:
    made = spec_of(settings(tmp_path), workers=2)
    assert (made.workers, made.options, made.env, made.mailbox) == (2, None, {}, False)
    assert spec_of(settings(tmp_path, workers=0), workers=2).workers == 0


def test_queues_are_an_option_of_the_worker(tmp_path: Path) -> None:
    queues = ("mails", "reports")
    assert spec_of(settings(tmp_path, queues=queues), workers=1).options == (*DEFAULT_OPTIONS, "--queues=mails,reports")
    made = spec_of(settings(tmp_path, queues=queues, options=("-Q", "old")), workers=1)
    assert made.options == ("-Q", "old", "--queues=mails,reports")


def test_without_an_app_there_is_no_stack(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no app is named: .*\[tool\.harness\] of pyproject\.toml or in harness\.toml"
    ):
        spec_of(Settings(folder=tmp_path), workers=1)


SAID: Mapping[str, Any] = {
    "pythonpath": (Path("src"),),
    "python": "3.12",
    "dependencies": ("redis",),
    "apt": ("libpq5",),
    "dockerfile": Path("Dockerfile"),
    "image": "shop:1",
    "prepare": ("true",),
    "writable": True,
    "mounts": (Mount(host=Path("a"), inside="/a"),),
    "services": ("redis",),
    "network": Network.OPEN,
}


@pytest.mark.parametrize("key", UNSERVED)
def test_a_setting_that_nothing_serves_is_refused(tmp_path: Path, key: str) -> None:
    said = settings(tmp_path, **{key: SAID[key]})
    assert unserved(said) == [key]
    with pytest.raises(UsageError, match=rf"^harness\.toml: it: the setting {key} is not served yet; leave it out"):
        spec_of(said, workers=1)


@pytest.mark.parametrize("key", ["image", "network"])
def test_a_variable_that_holds_for_all_stacks_is_served(tmp_path: Path, key: str) -> None:
    said = settings(tmp_path, str(KEYS[key].variable), **{key: SAID[key]})
    assert unserved(said) == []
    assert spec_of(said, workers=1).app == "shop.app"


def test_a_template_that_nothing_renders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^harness\.toml: it: A has the template \{mailbox\.host\}, and templates are"
    ):
        spec_of(settings(tmp_path, env={"A": "{mailbox.host}"}), workers=1)
