"""From settings to a stack: what reaches it, and what is refused because nothing serves it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.project.needs import Mount, Network, ResultsIn, Service
from harness.project.settings import Settings
from harness.stack.project_stack import UNSERVED, spec_of, unserved
from harness.stack.stack_spec import StackSpec


def settings(folder: Path, said_by: str = "harness.toml: it", **said: Any) -> Settings:
    return Settings(folder=folder, **{"app": "shop.app", **said}, sources=dict.fromkeys(said, said_by))


def test_a_stack_is_what_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    said = settings(
        tmp_path,
        workers=3,
        options=("-P", "solo"),
        queues=("mails",),
        env={"A": "{mailbox.host}"},
        pythonpath=(tmp_path / "src",),
        image="shop:1",
        prepare=("true",),
        writable=("media",),
        mounts=(Mount(host=tmp_path / "src", inside="/a"),),
        services=(Service.REDIS,),
        results=ResultsIn.POSTGRESQL,
        network=Network.OPEN,
    )
    assert spec_of(said, workers=1, mailbox=True) == StackSpec(
        app="shop.app",
        app_folder=tmp_path,
        workers=3,
        options=("-P", "solo"),
        queues=("mails",),
        mailbox=True,
        env={"A": "{mailbox.host}"},
        pythonpath=["src"],
        image="shop:1",
        prepare=("true",),
        writable=("media",),
        mounts=(Mount(host=tmp_path / "src", inside="/a"),),
        services=(Service.REDIS,),
        results=ResultsIn.POSTGRESQL,
        network=Network.OPEN,
    )


def test_what_nobody_said_is_the_doors_own(tmp_path: Path) -> None:
    assert spec_of(settings(tmp_path), workers=2) == StackSpec(
        app="shop.app", app_folder=tmp_path, workers=2, pythonpath=[]
    )
    assert spec_of(settings(tmp_path, workers=0), workers=2).workers == 0


def test_without_an_app_there_is_no_stack(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no app is named: .*\[tool\.harness\] of pyproject\.toml or in harness\.toml"
    ):
        spec_of(Settings(folder=tmp_path), workers=1)


SAID: Mapping[str, Any] = {
    "python": "3.12",
    "dependencies": ("redis",),
    "apt": ("libpq5",),
    "dockerfile": Path("Dockerfile"),
}


@pytest.mark.parametrize("key", UNSERVED)
def test_a_setting_that_nothing_serves_is_refused(tmp_path: Path, key: str) -> None:
    said = settings(tmp_path, **{key: SAID[key]})
    assert unserved(said) == [key]
    with pytest.raises(UsageError, match=rf"^harness\.toml: it: the setting {key} is not served yet; leave it out"):
        spec_of(said, workers=1)
