"""Templates in the environment: what they become, and which are refused."""

import pytest

from harness.errors import UsageError
from harness.project.templates import asks_for_mailbox, check, escaped, rendered

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
        ("{database.host}", r"A asks for \{database\.host\}, but this stack lacks a database server; add .*`services"),
        ("{redis.url}", r"A asks for \{redis\.url\}, but this stack lacks a Redis; add .*`services = \[.redis.\]`"),
        ("{", r"A has a single \{ that belongs to no template"),
    ],
)
def test_a_template_that_this_stack_does_not_know_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rendered({"A": text}, KNOWN)


@pytest.mark.parametrize(
    ("value", "asks"),
    [("{mailbox.host}", True), ("x{mailbox.port}", True), ("{{mailbox.host}}", False), ("{broker.url}", False)],
)
def test_a_stack_has_a_mailbox_if_a_template_asks_for_it(value: str, *, asks: bool) -> None:
    assert asks_for_mailbox({"X": value}) is asks


def test_every_template_of_a_service_is_known_before_a_stack_has_one() -> None:
    check({"A": "{database.host}{database.port}{database.name}{database.user}{database.password}"}, "env")
    check({"A": "{redis.url}{redis.host}{redis.port}{redis.database}{redis.user}{redis.password}"}, "env")
    with pytest.raises(UsageError, match=r"env\.A asks for \{redis\.urls\}.* Did you mean \{redis\.url\}\?"):
        check({"A": "{redis.urls}"}, "env")
