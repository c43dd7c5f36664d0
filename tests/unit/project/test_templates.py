"""Templates in the environment: what they become, and which are refused."""

import pytest

from harness.errors import UsageError
from harness.project.settings import rendered
from harness.project.templates import escaped

KNOWN = {"broker.url": "amqp://broker", "mailbox.host": "mailbox-1", "mailbox.port": "2525"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain $HOME", "plain $HOME"),
        ("{mailbox.host}:{mailbox.port}", "mailbox-1:2525"),
        ('{{"smtp": "{mailbox.host}"}}', '{"smtp": "mailbox-1"}'),
        ("{{mailbox.host}}", "{mailbox.host}"),
        ("{{{mailbox.host}}}", "{mailbox-1}"),
    ],
)
def test_a_template_becomes_what_the_stack_knows(text: str, value: str) -> None:
    assert rendered({"A": text}, KNOWN) == {"A": value}


@pytest.mark.parametrize("text", ["", "{}", "{mailbox.host}", '{"a": {"b": 1}}', "}{", "{{", "a\nb"])
def test_an_escaped_text_is_rendered_to_itself(text: str) -> None:
    assert rendered({"A": escaped(text)}, {}) == {"A": text}


def test_what_a_stack_knows_beyond_the_fixed_names_can_be_used() -> None:
    assert rendered({"A": "{redis.url}"}, {"redis.url": "redis://r"}) == {"A": "redis://r"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{mailbox.ports}", r"A asks for \{mailbox\.ports\}, which no stack knows\. Did you mean \{mailbox\.port\}\?"),
        ("{}", r"A asks for \{\}, which no stack knows\. Templates are \{broker\.url\}, "),
        ("{database.url}", r"A asks for \{database\.url\}, but this stack lacks a database; add the setting `services"),
        ("{", r"A has a single \{ that belongs to no template"),
    ],
)
def test_a_template_that_this_stack_does_not_know_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rendered({"A": text}, KNOWN)


def test_a_stack_without_a_mailbox_says_so() -> None:
    with pytest.raises(UsageError, match=r"asks for \{mailbox\.host\}, but this stack lacks a mailbox; ask for one"):
        rendered({"A": "{mailbox.host}"}, {"broker.url": ""})
