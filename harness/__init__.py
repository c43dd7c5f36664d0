"""Celery Harness: do my tasks survive?

A harness that starts a real RabbitMQ and real Celery workers in containers, drives them with scenarios, and
accounts for every single task. The rooms of the house, from the top down; imports only ever point down:

    cli, plugin, load        the doors: the shell, pytest, Locust;
      celery_setup           and pytest-celery, for those who have its tests
    loadtest                 what is behind the third: the load, and what it does to a stack
    running                  one run from start to report; beat through days in seconds; a stack that stays up
    faults                   what is broken on purpose, and the proof that it was
    scenario, stack          what is done, and what it is done to: a stack of our own, or one that runs elsewhere
    producer, containers     what sends, and the containers, seen from outside
    report                   how a run is shown
    audit                    what became of each task: a pure function of the run folder
    measure                  how long the stages of a task's life took
    records                  what is written down: expectations, journal lines, messages, verdicts
    wait, console            what everything else stands on,
      errors, printable        and how it is shown to people
    inside                   what runs inside the containers: the agent, the mail server, the web producer
"""

from harness.records.expectation import Delivery, Effect, Effects, Expect, Promise, mail
from harness.records.verdict import Fate, Finding, Verdict
from harness.scenario import Drive, Request, Scenario

# What a scenario or a test is written with. None of it needs an engine, so workers may import it as well.
__all__ = [
    "Delivery",
    "Drive",
    "Effect",
    "Effects",
    "Expect",
    "Fate",
    "Finding",
    "Promise",
    "Request",
    "Scenario",
    "Verdict",
    "mail",
]

__version__ = "0.1.0"
