"""A run as traces: Perfetto's own page opens one, and OpenTelemetry's own messages read the other."""

import base64
import functools
import http.server
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import viztracer
from click.testing import CliRunner, Result
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from harness.audit.journal_in_order import JournalInOrder
from harness.commands.cli import cli
from harness.errors import RunFolderError, UsageError
from harness.records.expectation import Promise
from harness.report.page import page
from harness.report.run_view import view_of
from harness.wait import wait_until
from tests.browser import chromium

A, B, C, LOST = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "abcd")
HOSTILE = "shop.<img src=x>\ud800\x00\x1b[31m\"'"


def lines(node: str, pid: int, *events: tuple[float, str, dict[str, Any]]) -> str:
    opened = {"n": 0, "t": 100.0, "kind": "opened", "node": node, "pid": pid, "role": "worker"}
    made = [opened, *({"n": n, "t": t, "kind": kind, **more} for n, (t, kind, more) in enumerate(events, start=1))]
    return "".join(json.dumps(one) + "\n" for one in made)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run.

    A sends B. C has a hostile name, is no UUID's task, fails, and runs twice. One is lost with its process. Two tasks
    run at once in one process.
    """
    folder = tmp_path / "runs" / "20260101T000000-shop"
    (folder / "journal").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    sent = [
        (100.0 + n, kind, {"task": task, "name": name})
        for n, (task, name) in enumerate(((A, "shop.pay"), ("c", HOSTILE), (LOST, "shop.lose")))
        for kind in ("intended", "accepted")
    ]
    journal = folder / "journal"
    (journal / "producer.1.1.jsonl").write_text(lines("producer", 1, *sent))
    (journal / "worker-1.7.1.jsonl").write_text(
        lines(
            "worker-1",
            7,
            (103.0, "started", {"task": A, "name": "shop.pay"}),
            (103.2, "intended", {"task": B, "name": "shop.mail", "parent": A, "due": 104.0}),
            (103.3, "accepted", {"task": B}),
            (103.4, "started", {"task": "c", "name": HOSTILE}),
            (103.6, "finished", {"task": "c", "state": "FAILURE", "error": HOSTILE}),
            (103.9, "finished", {"task": A, "state": "SUCCESS"}),
            (105.0, "started", {"task": B, "name": "shop.mail"}),
            (105.5, "finished", {"task": B, "state": "SUCCESS"}),
        )
    )
    (journal / "worker-1.8.1.jsonl").write_text(
        lines(
            "worker-1",
            8,
            (104.0, "started", {"task": LOST, "name": "shop.lose"}),
            (106.0, "started", {"task": "c", "name": HOSTILE, "redelivered": True}),
        )
    )
    (journal / "worker-1.2.1.jsonl").write_text(lines("worker-1", 2, (107.0, "exited", {"child": 8, "code": -9})))
    fault = {
        "text": "worker-1 was killed.",
        "missing": None,
        "error": None,
        "planned": "kill-worker@5s",
        "fault": "kill",
    }
    faults = [{**fault, "injected_t": 104.5, "healed_t": 106.5}, {**fault, "missing": "it did not land"}]
    (folder / "faults.json").write_text(json.dumps({"faults": faults}))
    return folder


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)], standalone_mode=False)


# --------------------------------------------------------------------------------------------------------- Perfetto

Query = Callable[[str], list[list[str]]]
QUERY = """
const [sql, done] = arguments;
(async () => {
  const found = await window.app.trace.engine.query(sql);
  const rows = [], names = found.columns();
  for (const row = found.iter({}); row.valid(); row.next()) rows.push(names.map((name) => String(row.get(name))));
  return rows;
})().then(done, (error) => done(String(error)));
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def perfetto(run: Path, tmp_path: Path) -> Iterator[Query]:
    """Open the run in Perfetto's page, and yield a function that asks its trace processor."""
    site = tmp_path / "site"
    site.mkdir()
    for path in Path(viztracer.__file__).with_name("web_dist").iterdir():
        (site / path.name).symlink_to(path)
    assert export(run, "--perfetto", site / "trace.json").return_value == 0
    with chromium() as browser:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            browser.set_script_timeout(60)
            here = f"http://127.0.0.1:{server.server_port}"
            browser.get(f"{here}/index.html#!/?url={here}/trace.json")
            is_open = "return Boolean(window.app && window.app.trace)"
            wait_until(lambda: browser.execute_script(is_open), what="Perfetto opens the trace", timeout_s=60)

            def query(sql: str) -> list[list[str]]:
                rows = browser.execute_async_script(QUERY, sql)
                assert isinstance(rows, list), rows
                return rows

            yield query
        finally:
            server.shutdown()
            server.server_close()


def test_perfetto_opens_the_trace_and_finds_nothing_wrong(perfetto: Query) -> None:
    assert perfetto("select name from stats where value > 0 and severity in ('error', 'data_loss')") == []
    tracks = """
        select process.name, thread.name, count(*) from slice join thread_track on slice.track_id = thread_track.id
        join thread using (utid) join process using (upid) group by 1, 2 order by 1, 2
    """
    assert perfetto(tracks) == [
        ["producer", "publishing of process 1", "3"],
        ["the run", "fault kill", "1"],
        ["worker-1", "process 7", "2"],
        ["worker-1", "process 7, 2", "1"],
        ["worker-1", "process 8", "1"],
        ["worker-1", "process 8, 2", "1"],
        ["worker-1", "publishing of process 7", "1"],
    ]
    # Each execution has an arrow from the publishing of its task.
    flows = """
        select o.name, i.name, i.ts >= o.ts from flow join slice o on flow.slice_out = o.id
        join slice i on flow.slice_in = i.id order by i.ts
    """
    name = HOSTILE.replace("\ud800", "\\ud800").replace("\x00", "\\x00").replace("\x1b", "\\x1b")
    assert perfetto(flows) == [
        ["publish shop.pay", "shop.pay", "1"],
        [f"publish {name}", name, "1"],
        ["publish shop.lose", "shop.lose", "1"],
        ["publish shop.mail", "shop.mail", "1"],
        [f"publish {name}", name, "1"],
    ]
    assert perfetto("select count(*) from slice where dur < 0") == [["0"]]
    fault = "select name, dur from slice where name glob 'kill*'"
    assert perfetto(fault) == [["kill-worker@5s", str(2_000_000_000)]]
    counters = """
        select t.name, max(value), min(value) from counter c join process_counter_track t on c.track_id = t.id
        group by 1 order by 1
    """
    assert perfetto(counters) == [["backlog tasks", "4", "0"], ["running tasks", "2", "0"]]
    died = "select extract_arg(arg_set_id, 'args.state') from slice where name = 'shop.lose'"
    assert perfetto(died) == [["DIED"]]


# ---------------------------------------------------------------------------------------------------- OpenTelemetry


def hex_of(written: bytes) -> str:
    """Return the id as it is written: OTLP has hexadecimal text where the JSON of other messages has base64."""
    return base64.b64encode(written).decode()


def spans_in(path: Path) -> list[tuple[str, Any]]:
    """Return each span, with its node."""
    found = []
    for line in path.read_text().splitlines():
        data = json_format.Parse(line, TracesData())
        for resource in data.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert names["celery_harness.run"] == "20260101T000000-shop"
            found += [(names["service.name"], span) for scope in resource.scope_spans for span in scope.spans]
    return found


def test_a_collector_reads_the_traces_and_every_link_leads_somewhere(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    assert export(run, "--otlp", file).return_value == 0
    found = spans_in(file)
    by_id = {span.span_id: span for _, span in found}
    assert len(by_id) == len(found) == 4 + 5 + 5
    for _, span in found:
        assert re.fullmatch("[0-9a-f]{32}", hex_of(span.trace_id))
        assert re.fullmatch("[0-9a-f]{16}", base64.b64encode(span.span_id).decode())
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if span.parent_span_id:
            assert by_id[span.parent_span_id].trace_id == span.trace_id
            assert by_id[span.parent_span_id].start_time_unix_nano <= span.start_time_unix_nano
    kinds = Counter((node, span.name.partition(" ")[0], span.kind) for node, span in found)
    assert kinds == {
        ("producer", "publish", Span.SPAN_KIND_PRODUCER): 3,
        ("worker-1", "publish", Span.SPAN_KIND_PRODUCER): 1,
        ("worker-1", "queue", Span.SPAN_KIND_INTERNAL): 5,
        ("worker-1", "run", Span.SPAN_KIND_CONSUMER): 5,
    }


def test_what_a_task_sends_is_in_its_trace_which_has_its_id(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    export(run, "--otlp", file)
    found = [span for _, span in spans_in(file)]
    trace = [span for span in found if hex_of(span.trace_id) == A.replace("-", "")]
    names = {span.span_id: span.name for span in trace}
    links = {span.name: names.get(span.parent_span_id) for span in trace}
    assert links == {
        "publish shop.pay": None,
        "queue shop.pay": "publish shop.pay",
        "run shop.pay": "publish shop.pay",
        "publish shop.mail": "run shop.pay",
        "queue shop.mail": "publish shop.mail",
        "run shop.mail": "publish shop.mail",
    }
    # The wait of a task with a countdown begins when it is due.
    (queue,) = [span for span in trace if span.name == "queue shop.mail"]
    assert (queue.start_time_unix_nano, queue.end_time_unix_nano) == (104 * 10**9, 105 * 10**9)


def test_a_failure_and_a_death_are_errors_and_a_hostile_name_is_text(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    export(run, "--otlp", file)
    codes = Counter((span.name[:8], span.status.code) for _, span in spans_in(file) if span.name.startswith("run "))
    assert sum(count for (_, code), count in codes.items() if code == 2) == 3
    assert any("\\x1b" in span.name for _, span in spans_in(file))
    assert "\x1b" not in file.read_text()


def test_the_same_run_gives_the_same_traces(run: Path, tmp_path: Path) -> None:
    texts = set()
    for number in range(2):
        export(run, "--otlp", tmp_path / f"{number}")
        texts.add((tmp_path / f"{number}").read_text())
    assert len(texts) == 1


# ------------------------------------------------------------------------------------------------------- the command


def test_lines_that_cannot_be_read_make_it_unknown(run: Path, tmp_path: Path) -> None:
    with (run / "journal" / "producer.1.1.jsonl").open("a") as file:
        file.write("no JSON\n")
    answer = export(run, "--otlp", tmp_path / "traces", "--json")
    assert answer.return_value == 3
    assert json.loads(answer.stdout)["damaged"] == 1


@pytest.mark.parametrize("member", ["t", "due", "store_s"])
def test_a_line_with_an_absurd_time_is_a_damaged_line_for_export_and_report(
    run: Path, tmp_path: Path, member: str
) -> None:
    (run / "run.json").write_text(json.dumps({"name": "a", "promise": Promise().to_json(), "nodes": ["producer"]}))
    journal = run / "journal" / "producer.1.1.jsonl"
    last = json.loads(journal.read_text().splitlines()[-1])
    with journal.open("a") as file:
        file.write(json.dumps({**last, "n": last["n"] + 1, member: 1e308}) + "\n")
    answer = export(run, "--perfetto", tmp_path / "trace", "--otlp", tmp_path / "traces", "--json")
    assert (answer.return_value, json.loads(answer.stdout)["damaged"]) == (3, 1)
    view = view_of(run)
    assert view.audit is not None
    assert "journal-incomplete" in {one.code for one in view.audit.findings}
    assert "</html>" in page(view)


def test_a_run_without_a_journal_is_refused(run: Path, tmp_path: Path) -> None:
    for path in (run / "journal").iterdir():
        path.unlink()
    error = export(run, "--otlp", tmp_path / "t").exception
    assert isinstance(error, RunFolderError)
    assert "has no journal, so that there is nothing to export" in str(error)
    assert not (tmp_path / "t").exists()


def test_a_wrong_use_is_told_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    assert isinstance(export(run).exception, UsageError)
    assert isinstance(export(tmp_path, "--otlp", tmp_path / "t").exception, RunFolderError)
    assert isinstance(export(run, "--otlp", tmp_path / "no" / "t").exception, RunFolderError)
    assert isinstance(export(run, "--perfetto", "/dev/null").exception, UsageError)
    assert isinstance(export(run, "--perfetto", tmp_path / "t", "--otlp", tmp_path / "." / "t").exception, UsageError)
    (run / "faults.json").write_text('{"faults": 1}')
    assert isinstance(export(run, "--perfetto", tmp_path / "t").exception, RunFolderError)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_export_that_breaks_off_leaves_no_half_a_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trace.json"
    file.write_text("that of before")

    def broken(_self: object) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(JournalInOrder, "__iter__", broken)
    assert export(run, "--perfetto", file).exit_code != 0
    assert file.read_text() == "that of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "trace.json"]
