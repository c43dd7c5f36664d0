"""From settings to a stack: what reaches it, and what is refused because nothing serves it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.project.needs import Mount, Network, ResultsIn, Service
from harness.project.settings import Settings
from harness.stack.project_stack import spec_of
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


def test_a_project_with_settings_gets_an_image_of_its_own_as_soon_as_it_says_what_to_install(tmp_path: Path) -> None:
    said = replace(settings(tmp_path), project=tmp_path)
    assert spec_of(said, workers=1).build is None
    (tmp_path / "requirements.txt").write_text("celery==5.4.0\n")
    made = spec_of(replace(said, apt=("libpq5",)), workers=1).build
    assert made is not None
    assert (made.source, made.requirements, made.apt) == ("requirements.txt", ("celery==5.4.0",), ("libpq5",))
    assert spec_of(replace(said, image="shop:1"), workers=1).build is None
    assert spec_of(said, workers=1, own_image=False).build is None


def test_a_project_without_settings_has_not_asked_for_an_image_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("celery==5.4.0\n")
    assert spec_of(settings(tmp_path), workers=1).build is None
    made = spec_of(settings(tmp_path, dependencies=("celery==5.5.3", tmp_path / "requirements.txt")), workers=1).build
    assert made is not None
    assert set(made.requirements) == {"celery==5.4.0", "celery==5.5.3"}


@pytest.mark.parametrize(("key", "value"), [("python", "3.13"), ("apt", ("libpq5",))])
def test_what_is_said_of_an_image_that_nothing_is_installed_in_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^harness\.toml: it: the setting {key} is for the app's own image, and"):
        spec_of(settings(tmp_path, **{key: value}), workers=1)
