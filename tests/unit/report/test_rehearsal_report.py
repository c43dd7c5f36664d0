"""What a deploy did, in words, as a table and as JSON."""

import io
import json

from harness.console import Console
from harness.records.rehearsal import Rehearsal, Rehearsed, Replaced, Share
from harness.records.verdict import Verdict
from harness.report import rehearsal_report

KILLED = Replaced(
    node="worker-1",
    first_process="/bin/sh -c celery -A shop worker --loglevel=info --concurrency=2; echo over",
    heard=False,
    was_killed=True,
    exit_code=137,
    took_s=10.2,
    begun=2,
    cut=("a", "b"),
)
ENDED = Replaced(
    node="worker-2", first_process="celery", heard=True, was_killed=False, exit_code=0, took_s=3.0, begun=1
)


def run(verdict: Verdict, *replaced: Replaced, **more: object) -> Rehearsed:
    counts = {"sent": 40, "lost": 0, "ran_again": 0, "doubled": 0, "failed": 0, "pending": 0}
    said = {**counts, "longest_s": 3.2, "longest_task": "pay", **more}
    return Rehearsed(title="2 workers", folder="one", verdict=verdict, replaced=replaced, **said)  # type: ignore[arg-type]


def shown(rehearsal: Rehearsal) -> str:
    out = io.StringIO()
    console = Console(file=out, width=140)
    for part in rehearsal_report.parts(rehearsal):
        console.print(part)
    return " ".join(out.getvalue().split())


def test_a_right_deploy_is_short_and_has_its_shortest_grace_with_the_proof() -> None:
    first = run(Verdict.PASS, ENDED, waited_s=2.0, waited_before_s=1.0, overhead_s=1.5)
    proof = run(Verdict.PASS, ENDED)
    rehearsal = Rehearsal(name="shop", what="rolling", runs=[first], shortest_grace_s=4, is_proven=True, proof=proof)
    said = shown(rehearsal)
    assert "2 workers: pass" in said
    assert "40 sent: none was lost, failed or ran twice. A worker took tasks at every time." in said
    assert "during the deploy: 2 s; before it, 1 s." in said
    assert "cuts no task: 4 s, as pay took 3.2 s at the longest; a second run with it cut none (one)." in said
    assert "took up to 1.5 s to end after its last task" in said
    assert rehearsal.verdict is Verdict.PASS
    assert Rehearsal.from_json(json.loads(json.dumps(rehearsal.to_json()))) == rehearsal
    assert "- 40 sent: none was lost" in rehearsal_report.markdown(rehearsal)


def test_a_shell_that_passes_no_signal_on_is_named_with_what_helps() -> None:
    broken = run(Verdict.FAIL, KILLED, ENDED, lost=1, ran_again=2, untaken_s=3.4, findings=("lost: one.",))
    rehearsal = Rehearsal(name="shop", what="rolling", runs=[broken])
    said = shown(rehearsal)
    assert "worker-1 /bin/sh -c celery -A shop worker --logl… 10.2 s killed (SIGKILL) 2 2" in said
    assert "worker-2 celery 3 s by itself, with 0 1 0" in said
    assert "40 sent: 1 lost, 2 ran twice. For 3.4 s, no worker took tasks." in said
    assert "worker-1 never heard of SIGTERM: process 1 is /bin/sh, which passes no signal on" in said
    assert "worker-2 never heard" not in said
    assert "lost: one." in said
    assert "No grace period helps a worker that does not hear the signal." in said
    assert broken.killed == 1
    assert broken.cut == 2


def test_a_grace_that_was_not_proven_says_so() -> None:
    unproven = Rehearsal(name="shop", what="rolling", runs=[run(Verdict.PASS, ENDED)], shortest_grace_s=4)
    assert "no run has shown it" in shown(unproven)
    unproven.is_proven = False
    assert "cut some all the same" in shown(unproven)


ONE = Share(took_s=2.0, begun={"worker-1": 9})


def test_who_took_how_many_tasks_at_each_number_of_workers_is_a_table() -> None:
    three = Share(took_s=4.0, begun={"worker-1": 12, "worker-2": 7, "worker-3": 6})
    scaled = run(Verdict.PASS, ENDED, shares=(ONE, three), gap_s=0.5, gap_before_s=0.25)
    rehearsal = Rehearsal(name="shop", what="scale", runs=[scaled])
    said = shown(rehearsal)
    assert "1 2 s 9 worker-1 9" in said
    assert "3 4 s 25 worker-1 12, worker-2 7, worker-3 6" in said
    assert "The longest time in which no task began during the deploy: 500 ms; before it, 250 ms." in said
    assert "stays with it" not in said
    assert Rehearsal.from_json(json.loads(json.dumps(rehearsal.to_json()))) == rehearsal
    assert "| 3 | 4 s | 25 | worker-1 12, worker-2 7, worker-3 6 |" in rehearsal_report.markdown(rehearsal)


def test_a_worker_that_took_much_less_than_another_one_is_told_if_there_was_enough_to_do() -> None:
    uneven = Share(took_s=4.0, begun={"worker-1": 13, "worker-2": 0})
    scaled = run(Verdict.PASS, ENDED, shares=(ONE, uneven))
    assert "Of 2 workers, worker-1 began 13 tasks and worker-2 0: what a worker" in shown(
        Rehearsal(name="s", what="scale", runs=[scaled])
    )
    few = Share(took_s=4.0, begun={"worker-1": 6, "worker-2": 1})
    scaled = run(Verdict.PASS, ENDED, shares=(ONE, few))
    assert "stays with it" not in shown(Rehearsal(name="s", what="scale", runs=[scaled]))


def test_workers_that_are_replaced_one_by_one_need_no_table_of_their_shares() -> None:
    assert "by each" not in shown(
        Rehearsal(name="s", what="rolling", runs=[run(Verdict.PASS, ENDED, shares=(ONE, ONE))])
    )


def test_a_broker_that_was_down_and_what_it_refused_are_told() -> None:
    upgraded = run(Verdict.PASS, refused=7, broker_down_s=9.5, gap_s=10.0, gap_before_s=0.5)
    said = shown(Rehearsal(name="s", what="broker-upgrade", runs=[upgraded]))
    assert "40 sent: 7 refused, as their sender was told. The broker was down for 9.5 s." in said
    assert "A worker took tasks at every time" not in said
