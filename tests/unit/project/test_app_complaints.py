"""What a worker that does not start lacks, by its last words: real ones, as Python and libraries say them."""

import subprocess
import sys

import pytest

from harness.project.app_complaints import missing_module, missing_variables


def last_words(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("import os; os.environ['SHOP_URL']", ("SHOP_URL",)),
        ("{}['SHOP_URL']", ()),
        ("import os; os.environ['home-made']", ()),
        ("raise Exception('Set the SHOP_URL environment variable')", ("SHOP_URL",)),
        (
            "class UndefinedValueError(Exception): ...\nraise UndefinedValueError('SHOP_URL not found. Declare')",
            ("SHOP_URL",),
        ),
        (
            "import pydantic\nclass Settings(pydantic.BaseModel):\n    shop_url: str\n    port: int\nSettings()",
            ("SHOP_URL", "PORT"),
        ),
        ("1 / 0", ()),
    ],
)
def test_the_variables_that_were_asked_for_in_vain_are_known(code: str, variables: tuple[str, ...]) -> None:
    assert missing_variables(last_words(code)) == variables


def test_the_module_that_is_not_there_is_known() -> None:
    assert missing_module(last_words("import no_such_module.part")) == "no_such_module"
    assert missing_module(last_words("1 / 0")) is None
