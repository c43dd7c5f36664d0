"use strict";
// The script of the page of a stack that is up. It puts values into the page as text, never as HTML, and asks nobody but
// the server that the page came from.
(() => {
  const byId = (id) => document.getElementById(id);
  const about = JSON.parse(byId("about").textContent);
  const GOOD = new Set(["running", "SUCCESS"]), BAD = new Set(["exited", "gone", "FAILURE", "refused", "discarded", "revoked"]);
  const badge = byId("badge"), said = byId("said");
  let told = "", isBusy = false;

  // A row stays as long as what it shows does, and a cell that says the same is left alone, so that nobody loses the focus.
  function fill(table, items, keyOf, cellsOf) {
    const body = byId(table).tBodies[0];
    const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    items.forEach((item, place) => {
      const key = keyOf(item), cells = cellsOf(item);
      let row = rows.get(key);
      rows.delete(key);
      if (row === undefined) {
        row = document.createElement("tr");
        row.dataset.key = key;
        cells.forEach((_, number) => {
          const cell = document.createElement(number ? "td" : "th");
          if (!number) cell.scope = "row";
          row.append(cell);
        });
      }
      cells.forEach((value, number) => put(row.cells[number], value));
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] || null);
    });
    rows.forEach((row) => row.remove());
  }

  function put(cell, value) {
    const mark = JSON.stringify(value);
    if (cell.dataset.mark === mark) return;
    cell.dataset.mark = mark;
    const parts = Array.isArray(value) ? value : [value];
    cell.replaceChildren(...parts.map(part));
  }

  function part(value) {
    if (typeof value !== "object") return document.createTextNode(String(value));
    const made = document.createElement(value.tag);
    made.textContent = value.text;
    if (value.css) made.className = value.css;
    if (value.href) made.href = value.href;
    if (value.label) made.setAttribute("aria-label", value.label);
    if (value.order) made.addEventListener("click", () => order(value.order));
    return made;
  }

  const state = (word) => ({ tag: "span", text: word, css: GOOD.has(word) ? "pass" : BAD.has(word) ? "fail" : "unknown" });
  const button = (text, label, what, css) => ({ tag: "button", text, label, order: what, css });

  function show(view) {
    badge.textContent = "up";
    badge.className = "badge large pass";
    byId("counts").textContent = `${view.sent} sent, ${view.ended} ended, ${view.running} running`;
    const notes = byId("notes");
    notes.hidden = view.notes.length === 0;
    notes.replaceChildren(...view.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
    fill("table-nodes", view.nodes, (one) => one.name, (one) => [one.name, state(one.state), doTo(one)]);
    fill("table-holds", view.holds, (one) => String(one.number), (one) => [
      one.whom, one.moment, one.held || "not yet",
      [button("Let go", `Let go: ${one.whom} at ${one.moment}`, { do: "let-go", hold: one.number }),
       ...(one.held ? [button("Kill its process", `Kill the process of ${one.held}`, { do: "kill-held", hold: one.number }, "bad")] : [])],
    ]);
    fill("table-queues", view.queues, (one) => one.name, (one) => [one.name, one.ready, one.unacked]);
    fill("table-tasks", view.tasks, (one) => one.task, (one) => [
      { tag: "a", text: one.task, href: `/report#task=${encodeURIComponent(one.task)}` },
      one.name, state(one.state), one.node, one.starts, `${Math.max(one.t - one.sent_t, 0).toFixed(3)} s`,
    ]);
    const names = byId("names");
    const mark = JSON.stringify(view.names);
    if (names.dataset.mark !== mark) {
      names.dataset.mark = mark;
      names.replaceChildren(...view.names.map((name) => Object.assign(document.createElement("option"), { value: name })));
    }
  }

  function doTo(node) {
    if (!node.is_worker) return "";
    if (node.state === "running") return [button("Kill", `Kill ${node.name}`, { do: "kill", node: node.name }, "bad")];
    return [button("Start", `Start ${node.name}`, { do: "start", node: node.name })];
  }

  function tell(text, isBad) {
    said.textContent = text;
    said.className = isBad ? "fail" : "";
  }

  // Tell what keeps the stack from being shown; an empty text ends it.
  function trouble(word, text) {
    if (text) {
      badge.textContent = word;
      badge.className = "badge large fail";
      // The answer to an order stays as long as nothing else is to be told.
      if (text !== told) tell(text, true);
    } else if (said.textContent === told) {
      tell("");
    }
    told = text;
    document.querySelectorAll("button").forEach((one) => { one.disabled = word === "gone"; });
  }

  async function look() {
    try {
      const answer = await fetch("/state", { cache: "no-store" });
      const text = await answer.text();
      if (answer.ok) {
        show(JSON.parse(text));
        trouble("up", "");
      } else {
        // The server is there, and says what is wrong with the stack.
        trouble("error", text || `The server answered ${answer.status}.`);
      }
    } catch {
      trouble("gone", "The stack does not answer: it is being taken down, or it is gone.");
    }
    document.documentElement.dataset.ready = "yes";
  }

  async function order(what) {
    if (isBusy) {
      tell("One thing at a time: the last order is still being carried out.", true);
      return;
    }
    isBusy = true;
    tell("…");
    try {
      const answer = await fetch("/order", {
        method: "POST",
        headers: { "Content-Type": "application/json", [about.header]: about.token },
        body: JSON.stringify(what),
      });
      tell(await answer.text(), !answer.ok);
    } catch {
      tell("The stack does not answer.", true);
    }
    isBusy = false;
    await look();
  }

  function onSubmit(id, make) {
    byId(id).addEventListener("submit", (event) => {
      event.preventDefault();
      order(make(new FormData(event.target)));
    });
  }

  onSubmit("send", (form) => ({
    do: "send", name: form.get("name"), args: form.get("args"), kwargs: form.get("kwargs"), count: Number(form.get("count")),
  }));
  onSubmit("hold", (form) => ({ do: "hold", name: form.get("name"), moment: form.get("moment") }));
  byId("first")?.addEventListener("click", () => order({ do: "first" }));

  async function run() {
    // One look after another: a slow answer is not asked for twice.
    for (;;) {
      await look();
      await new Promise((done) => { setTimeout(done, document.hidden ? 5 * about.interval : about.interval); });
    }
  }
  run();
})();
