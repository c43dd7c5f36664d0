"""Which Celery app a project has: small projects of each kind, and beside each one a sibling that has none."""

import os
import sys
from pathlib import Path, PurePosixPath

import pytest

from harness.errors import UsageError
from harness.project.discovery import Project, discover
from tests.unit.project.trees import DJANGO, FASTAPI, FLASK, PLAIN, made

NO_APP = "no Celery app was found in "


def found_in(project: Project) -> list[tuple[str, str]]:
    """Return the apps that were found, each with the folder that it is imported from."""
    return [(one.app, str(one.folder)) for one in project.candidates]


def test_a_plain_app_is_found_where_it_is_made(tmp_path: Path) -> None:
    project = discover(made(tmp_path, PLAIN))
    assert found_in(project) == [("shop.app", ".")]
    assert project.candidates[0].reasons == ("app = Celery(...) in shop/app.py, line 4",)
    assert project.needs.framework == "plain"
    assert project.notes == ()


@pytest.mark.parametrize(
    "content",
    [
        "from celery import Celery as C\napp = C('x')\n",
        "import celery\napp = celery.Celery('x')\n",
        "import celery as c\napp: c.Celery = c.Celery('x')\n",
        "from celery import Celery\nclass Own(Celery): ...\napp = Own('x')\n",
        "from celery import Celery\ndef make(): return Celery('x')\napp = make()\n",
        "from celery import Celery\ndef make():\n    inner = Celery('x')\n    return inner\napp = make()\n",
        "import os\nfrom celery import Celery\nif os.name:\n    app = Celery('x')\nelse:\n    app = None\n",
        "from celery import current_app\ndef make():\n    new = current_app\n    return new\napp = make()\n",
    ],
)
def test_an_app_is_found_however_it_is_written(tmp_path: Path, content: str) -> None:
    assert found_in(discover(made(tmp_path, {"worker.py": content}))) == [("worker", ".")]


@pytest.mark.parametrize(
    "content",
    [
        "from radish import Celery\napp = Celery('x')\n",
        "from celery import Celery\ndef make(): return Celery('x')\n",
        "from celery import Celery\nif __name__ == '__main__':\n    print(Celery)\n",
        "from celery import shared_task\n@shared_task\ndef work(): ...\n",
        "# app = Celery('x')\n",
        "from celery import Celery\nclass Own(Celery): ...\napp = Own\n",
    ],
)
def test_what_only_looks_like_an_app_is_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=NO_APP):
        discover(made(tmp_path, {"worker.py": content}))


def test_a_factory_of_another_module_makes_an_app(tmp_path: Path) -> None:
    files = {
        "blog/__init__.py": "",
        "blog/factory.py": "from celery import Celery\ndef make_celery(app):\n    return Celery(app)\n",
        "blog/worker.py": "from .factory import make_celery\ncelery = make_celery(object())\n",
    }
    assert found_in(discover(made(tmp_path, files))) == [("blog.worker", ".")]


def test_an_attribute_that_somebody_assigns_an_app_to_is_followed(tmp_path: Path) -> None:
    files = {
        "main.py": "from celery import Celery\nfrom fastapi import FastAPI\n"
        "def create():\n    app = FastAPI()\n    app.celery_app = Celery('x')\n    return app\n"
        "app = create()\ncelery = app.celery_app\n",
    }
    # Celery would take the FastAPI app, which is called `app`, for its own.
    assert found_in(discover(made(tmp_path, files))) == [("main:celery", ".")]


def test_a_django_project_is_imported_from_the_folder_of_its_manage_py(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {f"backend/{name}": content for name, content in DJANGO.items()}))
    assert found_in(project) == [("config.celery", "backend")]
    assert project.needs.framework == "django"
    assert project.needs.prepare_in(PurePosixPath("backend")) == {
        "python manage.py migrate --noinput": "backend/manage.py"
    }
    assert project.needs.prepare_in(PurePosixPath("elsewhere")) == {}
    assert project.needs.written == ("a SQLite file in backend/config/settings.py",)
    task = project.first_task(project.candidates[0])
    assert task is not None
    assert task.name(project.candidates[0].folder) == "config.celery.debug_task"


def test_a_flask_factory_in_a_src_layout_is_imported_from_src(tmp_path: Path) -> None:
    project = discover(made(tmp_path, FLASK))
    assert found_in(project) == [("blog.make_celery:celery_app", "src")]
    assert project.needs.framework == "flask"
    assert project.first_task(project.candidates[0]) is None, "a task with arguments is not for anybody to send"


def test_a_fastapi_app_with_two_queues_has_a_worker_that_consumes_both_and_the_default(tmp_path: Path) -> None:
    project = discover(made(tmp_path, FASTAPI))
    assert found_in(project) == [("app.worker.celery_app:celery_app", ".")]
    assert project.needs.framework == "fastapi"
    assert project.queues(project.candidates[0]) == ("celery", "images", "mails")


def test_an_app_without_routes_has_no_queues_of_its_own(tmp_path: Path) -> None:
    project = discover(made(tmp_path, PLAIN))
    assert project.queues(project.candidates[0]) == ()
    assert project.traffic.is_clear


def test_a_package_without_an_init_file_is_imported_from_where_its_own_imports_begin(tmp_path: Path) -> None:
    files = {name: content for name, content in FASTAPI.items() if not name.endswith("__init__.py")}
    files["app/worker/tasks.py"] += "from app.worker import celery_app as again\n"
    files["app/worker/celery_app.py"] += "import app.worker.tasks\n"
    assert found_in(discover(made(tmp_path, files))) == [("app.worker.celery_app:celery_app", ".")]


def test_a_module_named_celery_is_never_imported_under_that_name_alone(tmp_path: Path) -> None:
    files = {"proj/celery.py": "from celery import Celery\napp = Celery('proj')\n"}
    assert found_in(discover(made(tmp_path, files))) == [("proj.celery", ".")]


# ------------------------------------------------------------------------------------------- several candidates

TWO = {
    "shop/__init__.py": "",
    "shop/app.py": PLAIN["shop/app.py"],
    "stock/__init__.py": "",
    "stock/app.py": PLAIN["shop/app.py"],
}


def test_of_two_apps_none_is_certain(tmp_path: Path) -> None:
    project = discover(made(tmp_path, TWO))
    assert found_in(project) == [("shop.app", "."), ("stock.app", ".")]
    assert project.choice() is None


def test_of_two_apps_the_one_that_a_command_line_names_is_certain(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {**TWO, "Procfile": "worker: celery -A stock.app worker\n"}))
    chosen = project.choice()
    assert chosen is not None
    assert chosen.app == "stock.app"
    assert chosen.reasons == (
        "the command line in Procfile: line 1 names it",
        "app = Celery(...) in stock/app.py, line 4",
    )


def test_of_two_apps_that_command_lines_name_none_is_certain(tmp_path: Path) -> None:
    lines = "a: celery -A stock.app worker\nb: celery -A shop.app worker\n"
    assert discover(made(tmp_path, {**TWO, "Procfile": lines})).choice() is None


@pytest.mark.parametrize("folder", ["tests", "examples", "docs"])
def test_an_app_of_the_tests_or_of_an_example_does_not_make_the_choice_uncertain(tmp_path: Path, folder: str) -> None:
    project = discover(made(tmp_path, {**PLAIN, f"{folder}/other.py": PLAIN["shop/app.py"]}))
    assert [one.app for one in project.candidates] == ["shop.app", "other"]
    chosen = project.choice()
    assert chosen is not None
    assert chosen.app == "shop.app"


def test_an_app_of_the_tests_counts_where_there_is_no_other(tmp_path: Path) -> None:
    chosen = discover(made(tmp_path, {"tests/other.py": PLAIN["shop/app.py"]})).choice()
    assert chosen is not None
    assert chosen.app == "other"


def test_two_worker_services_of_one_app_are_one_candidate_with_the_queues_of_both(tmp_path: Path) -> None:
    compose = """
services:
  fast:
    command: celery -A shop.app worker -Q fast,mails -c 4
  slow:
    command: celery -A shop.app worker -Q slow
"""
    project = discover(made(tmp_path, {**PLAIN, "compose.yaml": compose}))
    assert found_in(project) == [("shop.app", ".")]
    assert project.queues(project.candidates[0]) == ("celery", "fast", "mails", "slow")
    assert len(project.candidates[0].commands) == 2


@pytest.mark.parametrize(
    ("files", "chosen", "others"),
    [
        # Each file here has the same worker, or one that says less.
        ({"Procfile": "w: celery -A shop.app worker -c 4\n"}, "Procfile: line 1", []),
        ({"Procfile": "w: celery -A shop.app worker -c 4\nv: celery -A shop.app worker\n"}, "Procfile: line 1", []),
        ({"Procfile": "w: celery -A shop.app worker -c 4\nb: celery -A shop.app beat\n"}, "Procfile: line 1", []),
        (
            {"Procfile": "w: celery -A shop.app worker -c 4\n", "README.md": "`celery -A shop.app worker -c 1`\n"},
            "Procfile: line 1",
            [],
        ),
        (
            {
                "compose.prod.yml": "services: {w: {command: celery -A shop.app worker -c 9}}\n",
                "start.sh": "celery -A shop.app worker -c 4\n",
            },
            "start.sh: line 1",
            [],
        ),
        # And here another one.
        (
            {"Procfile": "w: celery -A shop.app worker -c 4\nv: celery -A shop.app worker -c 1\n"},
            "Procfile: line 1",
            ["Procfile: line 2"],
        ),
        (
            {"Procfile": "w: celery -A shop.app worker -Q a\nv: celery -A shop.app worker -Q b -c 1\n"},
            "Procfile: line 2",
            ["Procfile: line 1"],
        ),
        ({"Procfile": "w: celery -A shop.app worker\n"}, None, []),
    ],
)
def test_the_options_of_one_worker_hold_and_others_are_known(
    tmp_path: Path, files: dict[str, str], chosen: str | None, others: list[str]
) -> None:
    candidate = discover(made(tmp_path, {**PLAIN, **files})).candidates[0]
    assert (candidate.worker and candidate.worker.source) == chosen
    assert [one.source for one in candidate.other_workers] == others


def test_a_worker_in_a_sentence_of_the_readme_names_the_app_and_its_queues(tmp_path: Path) -> None:
    readme = "Start a worker and beat: `celery -A shop.app worker -Q mails`, and ``celery -A shop.app beat``.\n"
    project = discover(made(tmp_path, {**PLAIN, "README.md": readme}))
    assert [(one.source, one.is_beat) for one in project.candidates[0].commands] == [
        ("README.md: line 1", False),
        ("README.md: line 1", True),
    ]
    assert project.queues(project.candidates[0]) == ("celery", "mails")


def test_a_command_line_finds_an_app_that_the_sources_do_not_show(tmp_path: Path) -> None:
    files = {
        "srv/shop/__init__.py": "",
        "srv/shop/late.py": "app = load()\n",
        "Procfile": "w: celery -A shop.late worker\n",
    }
    assert found_in(discover(made(tmp_path, files))) == [("shop.late", "srv")]


def test_a_command_line_that_names_no_file_of_the_project_is_noted(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {**PLAIN, "Procfile": "w: celery -A gone.app worker\n"}))
    assert found_in(project) == [("shop.app", ".")]
    assert project.notes == ("Procfile: line 1 names the app gone.app, and no file here has it.",)


def test_a_sentence_about_celery_in_a_readme_is_not_taken_for_a_command(tmp_path: Path) -> None:
    project = discover(
        made(tmp_path, {**PLAIN, "README.md": "The celery worker -A is nice.\nOur celery worker works.\n"})
    )
    assert project.notes == ()
    assert project.candidates[0].commands == ()


def test_the_package_that_a_django_command_line_names_is_the_app_of_its_celery_module(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {**DJANGO, "Procfile": "worker: celery -A config worker -B\n"}))
    assert found_in(project) == [("config", ".")]
    assert project.candidates[0].path == PurePosixPath("config/celery.py")
    assert project.candidates[0].commands[0].with_beat


# ----------------------------------------------------------------------------------------------- files of any kind


def test_a_file_that_is_no_valid_python_is_skipped_and_named(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {**PLAIN, "old.py": "import celery\nprint 'x'\n"}))
    assert found_in(project) == [("shop.app", ".")]
    (note,) = project.notes
    assert note.startswith("old.py was skipped, because it is no valid Python, line 2: ")


def test_a_file_that_is_neither_utf_8_nor_says_its_encoding_is_skipped_and_named(tmp_path: Path) -> None:
    project = discover(made(tmp_path, {**PLAIN, "old.py": b"import celery\nname = 'caf\xe9'\n"}))
    (note,) = project.notes
    assert note.startswith("old.py was skipped")


def test_a_file_that_says_its_encoding_is_read(tmp_path: Path) -> None:
    content = b"# -*- coding: latin-1 -*-\nfrom celery import Celery\nname = 'caf\xe9'\napp = Celery(name)\n"
    project = discover(made(tmp_path, {"worker.py": content}))
    assert found_in(project) == [("worker", ".")]
    assert project.notes == ()


def test_a_broken_file_that_has_nothing_to_do_with_celery_is_not_mentioned(tmp_path: Path) -> None:
    assert discover(made(tmp_path, {**PLAIN, "old.py": "print 'x'\n"})).notes == ()


@pytest.mark.parametrize("folder", [".venv", "node_modules", "env", ".tox/py", "venv"])
def test_folders_of_other_peoples_code_are_not_walked(tmp_path: Path, folder: str) -> None:
    made(tmp_path, {f"{folder}/other/app.py": PLAIN["shop/app.py"], "env/pyvenv.cfg": ""})
    with pytest.raises(UsageError, match=NO_APP):
        discover(tmp_path)


def test_a_package_behind_a_link_is_found_once_under_its_real_name(tmp_path: Path) -> None:
    made(tmp_path, {f"packages/{name}": content for name, content in PLAIN.items()})
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "shop").symlink_to("../packages/shop")
    project = discover(tmp_path)
    assert found_in(project) == [("shop.app", "packages")]
    assert project.outward == {}


def test_a_link_that_leads_out_of_the_project_is_followed_and_named(tmp_path: Path) -> None:
    made(tmp_path, {f"shared/{name}": content for name, content in PLAIN.items()})
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "shop").symlink_to("../shared/shop")
    project = discover(tmp_path / "project")
    assert found_in(project) == [("shop.app", ".")]
    assert project.outward == {PurePosixPath("shop"): tmp_path / "shared" / "shop"}
    assert project.notes == (f"shop is a link that leads out of the folder, to {tmp_path / 'shared' / 'shop'}.",)


def test_links_in_a_circle_and_to_nowhere_end_the_search_nowhere(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    (tmp_path / "shop" / "again").symlink_to("..")
    (tmp_path / "gone").symlink_to("nowhere")
    assert found_in(discover(tmp_path)) == [("shop.app", ".")]


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    made(tmp_path, PLAIN)
    os.mkfifo(tmp_path / "celery.py")
    os.mkfifo(tmp_path / "Procfile")
    assert found_in(discover(tmp_path)) == [("shop.app", ".")]


def test_nothing_of_the_project_is_imported(tmp_path: Path) -> None:
    content = f"from celery import Celery\nopen({str(tmp_path / 'ran')!r}, 'w')\napp = Celery('x')\n"
    discover(made(tmp_path, {"never_imported.py": content}))
    assert not (tmp_path / "ran").exists()
    assert "never_imported" not in sys.modules


def test_a_project_without_celery_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        discover(made(tmp_path, {"main.py": "print('hello')\n"}))
    assert str(raised.value) == (
        f"no Celery app was found in {tmp_path}: none of its 1 Python files makes one with `Celery(...)`, and no "
        "command line of a worker names one. Give the folder of your project, or say what `celery -A` takes with --app."
    )


def test_an_app_that_is_named_needs_not_be_found(tmp_path: Path) -> None:
    files = {"main.py": "", "src/late/__init__.py": "app = load()\n"}
    assert found_in(discover(made(tmp_path, files), "late:app")) == [("late:app", "src")]
    assert found_in(discover(tmp_path, "installed.app")) == [("installed.app", ".")]


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder: give the folder of your project"):
        discover(tmp_path / "gone")
