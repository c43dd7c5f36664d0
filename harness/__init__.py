"""Celery Harness: do my tasks survive?

A harness that starts a real RabbitMQ and real Celery workers in containers, drives them with scenarios, and
accounts for every single task. The modules by layers, from the top down; a module imports only from its own layer and
those below. The exception is `inside`: nothing imports it, and it imports records, errors, producer and audit.

    cli, plugin, load        the entry points: the shell, pytest, Locust;
      celery_setup           and pytest-celery's fixture, for projects with such tests
    selftest                 defects planted on purpose: does the audit find each?
    loadtest                 load tests with Locust: the load, and its effect on a stack
    running                  one run from start to report; beat through days in seconds; a stack that stays up
    faults                   faults injected on purpose, and the proof that they took effect
    scenario, stack          the actions, and the stack: one of the harness's own, or one that runs elsewhere
    producer, containers     the sender of tasks, and the containers, seen from outside
    report                   the display of a run
    audit                    the fate of each task, from the run folder alone
    measure                  the durations of the stages of a task's life
    project                  the settings of a project, from its file and the environment
    records                  expectations, journal lines, messages, verdicts
    project                  somebody's project, read from its files alone
    wait, console            the base of all others: waiting and output,
      errors, printable        errors and the escaping of text
    inside                   the code that runs inside the containers: the agent, the mail server, the web producer
"""

from harness.records.expectation import Delivery, Effect, Effects, Expect, Promise, mail
from harness.records.moment import Moment
from harness.records.verdict import Fate, Finding, Verdict
from harness.scenario import Drive, Request, Scenario

# The API for scenarios and tests. None of it needs an engine, so workers can import it as well.
__all__ = [
    "Delivery",
    "Drive",
    "Effect",
    "Effects",
    "Expect",
    "Fate",
    "Finding",
    "Moment",
    "Promise",
    "Request",
    "Scenario",
    "Verdict",
    "mail",
]

__version__ = "0.1.0"
