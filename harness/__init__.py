"""Celery Harness: do my tasks survive?

A harness that starts a real RabbitMQ and real Celery workers in containers, drives them with scenarios, and
accounts for every single task. The rooms of the house, from the top down; imports only ever point down:

    cli, plugin, load        the doors: the shell, pytest, Locust;
      celery_setup           and pytest-celery, for those who have its tests
    loadtest                 what is behind the third: the load, and what it does to a stack
    run                      one run from up to report
    timelapse, playground    beat through days in seconds; a stack that stays up
    faults                   what is broken on purpose, and the proof that it was
    scenario, stack          what is done, and what it is done to;
      attached               or to a broker and workers that run elsewhere
    session                  what stacks share: the engine, the images, a network, one broker
      settling               waiting until everything is at rest, or nothing can move any more
    producer, nodes          what sends, and the containers
    evidence                 what happened, and the verdict: journal, results, effects, ticks, audit
    errors, wait             what everything else stands on,
      printable, terminal      and how it is shown to people
    inside                   what runs inside the containers: the agent, the mail server, the web producer
"""

from harness.evidence.records import Delivery, Effect, Effects, Expect, Fate, Finding, Promise, Verdict, mail
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
