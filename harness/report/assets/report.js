"use strict";
// The script of a report: plots, the list of tasks, and the life of one. It puts values into the page as text, never as
// HTML, and asks no network for anything.
(() => {
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_MATCHES = 500, MOST_LOG_LINES = 400, MOST_FAMILY = 150;
  const GONE_BAD = new Set(["refused", "unknown", "revoked", "discarded", "retried", "errback", "exited"]);

  function make(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function draw(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const seconds = (value) => `${value.toFixed(3)} s`;

  // ------------------------------------------------------------------------------------------------------ the plots

  const points = JSON.parse(byId("plots").textContent);
  let plots = [];

  function shade(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = colour("fault");
    for (const [begin, end] of points.faults) {
      const left = Math.max(plot.valToPos(begin, "x", true), bbox.left);
      const right = Math.min(end === null ? Infinity : plot.valToPos(end, "x", true), bbox.left + bbox.width);
      if (right >= left) ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
    }
    ctx.restore();
  }

  function plot(name, label, series, data) {
    const place = byId(`plot-${name}`);
    if (!place) return;
    place.replaceChildren();
    const axis = { stroke: colour("soft"), grid: { stroke: colour("grid") }, ticks: { stroke: colour("grid") } };
    const options = {
      width: place.clientWidth || 600, height: 190, padding: [8, 8, 0, 0],
      cursor: { sync: { key: "run" }, y: false },
      scales: { x: { time: false } },
      axes: [{ ...axis }, { ...axis, size: 56 }],
      series: [{ label: "second", value: (_, value) => (value === null ? "–" : value.toFixed(2)) },
               ...series.map(([text, tint, dash]) => ({ label: text, stroke: colour(tint), width: 1.5, dash, spanGaps: true, points: { show: data[0].length < 60 } }))],
      hooks: { drawClear: [shade] },
    };
    const made = new uPlot(options, data, place);
    made.root.querySelector("canvas").setAttribute("role", "img");
    made.root.querySelector("canvas").setAttribute("aria-label", `${label}. The table of the timeline has the numbers.`);
    plots.push(made);
  }

  function showPlots() {
    plots.forEach((one) => one.destroy());
    plots = [];
    if (!points || !window.uPlot) return;
    plot("rates", "Tasks per second", [["sent/s", "blue"], ["begun/s", "violet"], ["ended/s", "teal"], ["failed/s", "fail", [4, 3]]], [points.t, ...points.rates]);
    plot("backlog", "Backlog", [["backlog", "blue"]], [points.t, points.backlog]);
    const stages = points.stages, lines = [], data = [points.t];
    const tints = { publish: "unknown", queue: "violet", run: "teal" };
    if (stages.e2e) ["p50", "p95", "p99"].forEach((name, at) => { lines.push([`e2e ${name}`, "blue", at ? [8 - 3 * at, 3] : undefined]); data.push(stages.e2e[at]); });
    for (const name of Object.keys(tints)) if (stages[name]) { lines.push([`${name} p95`, tints[name]]); data.push(stages[name][1]); }
    if (lines.length) plot("stages", "Seconds of each stage", lines, data);
  }

  // ------------------------------------------------------------------------------------------------------- the lives

  let lives = null, children = null, numbers = null;

  async function unpacked(text) {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const word = (number) => lives.words[number];
  const fateOf = (number) => word(lives.fates[number]);
  const href = (number) => `#task=${encodeURIComponent(lives.tasks[number])}`;

  function search() {
    const part = byId("find").value.trim().toLowerCase(), fate = byId("fate").value, found = [];
    let count = 0;
    const names = lives.words.map((text) => text.toLowerCase().includes(part));
    for (let number = 0; number < lives.tasks.length; number++) {
      const own = fateOf(number);
      if (fate && (fate === "!ok" ? own === "ok" : own !== fate)) continue;
      if (part && !lives.tasks[number].toLowerCase().includes(part) && !names[lives.names[number]]) continue;
      if (count++ < MOST_MATCHES) found.push(number);
    }
    byId("matches").replaceChildren(...found.map((number) => make("li", {},
      make("a", { href: href(number) }, make("code", {}, lives.tasks[number])), ` ${word(lives.names[number])} `,
      make("span", { class: `fate ${fateOf(number)}` }, fateOf(number)))));
    const more = count > found.length ? `; here are the first ${found.length}` : "";
    byId("found").textContent = `${count.toLocaleString("en")} ${count === 1 ? "task" : "tasks"} found${more}.`;
    return found;
  }

  function eventsOf(number) {
    const events = [];
    for (let at = lives.begins[number]; at < lives.begins[number + 1]; at++) {
      const owner = lives.owners[at];
      const [node, pid] = owner < 0 ? ["effect", 0] : lives.processes[owner];
      events.push({ t: lives.times[at] / 10000, kind: word(lives.kinds[at]), text: word(lives.texts[at]), node, owner, where: owner < 0 ? "effect" : `${node} (pid ${pid})` });
    }
    return events;
  }

  function spansOf(events) {
    // What the events say of the times between them: in the broker, in the hands of a worker, running.
    const spans = [], held = new Map(), open = new Map();
    let published = null;
    for (const event of events) {
      if (event.kind === "intended") published = event.t;
      else if (event.kind === "received") {
        // Between two deliveries the message was back in the broker, from a time that nobody tells.
        if (published !== null) spans.push({ lane: "broker", begin: published, end: event.t, css: "wait", text: "in the broker" });
        published = null;
        held.set(event.node, event);
      } else if (event.kind === "started") {
        const from = held.get(event.node);
        if (from) spans.push({ lane: from.where, begin: from.t, end: event.t, css: "hold", text: "held by the worker" });
        held.delete(event.node);
        // A process of a container that was started again may have the same id.
        open.set(event.owner, event);
      } else if (event.kind === "finished" && open.has(event.owner)) {
        spans.push({ lane: event.where, begin: open.get(event.owner).t, end: event.t, css: "run", text: "ran" });
        open.delete(event.owner);
      } else if (event.kind === "exited" && open.has(event.owner)) {
        spans.push({ lane: event.where, begin: open.get(event.owner).t, end: event.t, css: "run open", text: `began, and had not ended when its process ended ${event.text}`, cut: true });
        open.delete(event.owner);
      }
    }
    for (const event of open.values()) {
      // What broke the node broke off the execution; without such a fault, nobody knows how long it went on.
      const fault = lives.faults.find(([from, , , node]) => node === event.node && from >= event.t);
      const text = fault ? `began, and has not ended when ${fault[2]} came` : "began, and no end is known";
      spans.push({ lane: event.where, begin: event.t, end: fault ? fault[0] : null, css: "run open", text, cut: true });
    }
    for (const event of held.values()) spans.push({ lane: event.where, begin: event.t, end: null, css: "hold", text: "held, and not begun" });
    if (published !== null && events.some((event) => event.kind === "accepted")) spans.push({ lane: "broker", begin: published, end: null, css: "wait", text: "accepted by the broker, and no worker took it" });
    return spans;
  }

  function drawLife(number, events, width) {
    const spans = spansOf(events), left = Math.min(150, width * 0.3), lanes = [];
    for (const name of [...events.filter((event) => event.kind === "intended").map((event) => event.where), "broker",
                        ...events.map((event) => event.where).filter((where) => where !== "effect")]) if (!lanes.includes(name)) lanes.push(name);
    const status = word(lives.statuses[number]);
    if (status) lanes.push("result");
    if (events.some((event) => event.where === "effect")) lanes.push("effect");
    const times = events.map((event) => event.t);
    let begin = Math.min(...times), end = Math.max(...times);
    if (spans.some((span) => span.end === null || span.cut)) for (const [from, until] of lives.faults) if (from >= begin - 1 && from <= end + 30) end = Math.max(end, until === null ? from + 1 : until);
    const margin = Math.max((end - begin) * 0.04, 0.002);
    begin -= margin; end += margin;
    const high = 26, height = lanes.length * high + 26, x = (t) => left + ((t - begin) / (end - begin)) * (width - left - 8);
    const svg = draw("svg", { class: "drawing", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "The life of the task over time; the table below has the same events." });
    const clip = (t) => Math.min(Math.max(x(t), left), width);
    for (const [from, until, text] of lives.faults) {
      const to = until === null ? end : until;
      if (to < begin || from > end) continue;
      const band = draw("rect", { class: "span-fault", x: clip(from), y: 0, width: Math.max(clip(to) - clip(from), 2), height: height - 20 });
      band.append(draw("title", {}, text));
      svg.append(band);
    }
    for (let step = 0; step <= 4; step++) {
      const t = begin + ((end - begin) * step) / 4, anchor = step === 4 ? "end" : step ? "middle" : "start";
      svg.append(draw("line", { class: "axis", x1: x(t), x2: x(t), y1: 0, y2: height - 20 }));
      if (width > 500 || step % 2 === 0) svg.append(draw("text", { x: x(t), y: height - 6, "text-anchor": anchor }, `${t.toFixed(end - begin < 0.1 ? 4 : 2)} s`));
    }
    const middle = (lane) => lanes.indexOf(lane) * high + high / 2;
    lanes.forEach((lane) => {
      svg.append(draw("line", { class: "lane-line", x1: left, x2: width, y1: middle(lane), y2: middle(lane) }));
      svg.append(draw("text", { x: 4, y: middle(lane) + 4 }, lane.length > left / 7 ? `${lane.slice(0, left / 7 - 1)}…` : lane));
    });
    for (const span of spans) {
      const from = clip(span.begin), to = span.end === null ? width - 2 : clip(span.end);
      const bar = draw("rect", { class: span.css, x: from, y: middle(span.lane) - 6, width: Math.max(to - from, 2), height: 12 });
      bar.append(draw("title", {}, span.end === null || span.cut ? span.text : `${span.text} for ${seconds(span.end - span.begin)}`));
      svg.append(bar);
    }
    for (const event of events) {
      const bad = GONE_BAD.has(event.kind) || (event.kind === "finished" && !event.text.startsWith("SUCCESS"));
      const dot = draw("circle", { class: bad ? "dot bad" : "dot", cx: x(event.t), cy: middle(event.where), r: 4 });
      dot.append(draw("title", {}, `${event.kind} ${event.text}`));
      svg.append(dot);
    }
    if (status) {
      const last = events.filter((event) => event.kind === "finished").pop();
      svg.append(draw("text", { x: last ? Math.min(x(last.t) + 6, width - 70) : left + 6, y: middle("result") + 4 }, status));
    }
    return svg;
  }

  function familyOf(number) {
    let root = number;
    for (let steps = 0; lives.parents[root] >= 0 && steps < 1000; steps++) root = lives.parents[root];
    const levels = [[root]], seen = new Set([root]);
    while (levels.at(-1).length && seen.size < MOST_FAMILY) {
      const next = [];
      for (const one of levels.at(-1)) for (const child of children.get(one) || []) if (!seen.has(child) && seen.size < MOST_FAMILY) { seen.add(child); next.push(child); }
      levels.push(next);
    }
    return { levels: levels.filter((level) => level.length), seen };
  }

  function drawFamily(number) {
    const { levels, seen } = familyOf(number);
    // Those that should have followed, and were never sent, stand below all others.
    const unsent = new Map();
    for (const [before, task, name] of lives.unsent) if (seen.has(before) && unsent.size < MOST_FAMILY) unsent.set(task, [...(unsent.get(task) || [name]), before]);
    if (seen.size + unsent.size < 2) return null;
    if (unsent.size) levels.push([...unsent.keys()]);
    const wide = 170, high = 54, place = new Map();
    levels.forEach((level, row) => level.forEach((one, column) => place.set(one, [column * wide + 4, row * (high + 22) + 4])));
    const width = Math.max(...levels.map((level) => level.length)) * wide, height = levels.length * (high + 22);
    const svg = draw("svg", { class: "drawing", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "The tasks that sent each other" });
    const edge = (from, to, css) => {
      const [x1, y1] = place.get(from), [x2, y2] = place.get(to);
      svg.append(draw("path", { class: css, d: `M${x1 + 78} ${y1 + high - 12} C ${x1 + 78} ${y1 + high + 14}, ${x2 + 78} ${y2 - 16}, ${x2 + 78} ${y2}` }));
    };
    for (const one of seen) if (place.has(lives.parents[one])) edge(lives.parents[one], one, "edge");
    for (const [from, to] of lives.follows) if (place.has(from) && place.has(to)) edge(from, to, "edge next");
    for (const [task, [, ...befores]] of unsent) for (const before of befores) edge(before, task, "edge next");
    for (const [task, [name]] of unsent) {
      const [x, y] = place.get(task), short = name.length > 21 ? `…${name.slice(-20)}` : name;
      svg.append(draw("rect", { class: "box bad unsent", x, y, width: 156, height: high - 12, rx: 5 }));
      svg.append(draw("text", { x: x + 8, y: y + 17 }, short), draw("text", { x: x + 8, y: y + 34 }, `${task.slice(0, 8)} never sent`));
      place.delete(task);
    }
    for (const [one, [x, y]] of place) {
      const link = draw("a", { href: href(one) }), name = word(lives.names[one]);
      link.append(draw("rect", { class: `box${fateOf(one) === "ok" ? "" : " bad"}${one === number ? " here" : ""}`, x, y, width: 156, height: high - 12, rx: 5 }));
      link.append(draw("text", { x: x + 8, y: y + 17 }, name.length > 21 ? `…${name.slice(-20)}` : name));
      link.append(draw("text", { x: x + 8, y: y + 34 }, `${lives.tasks[one].slice(0, 8)} ${fateOf(one)}`));
      link.append(draw("title", {}, `${name} ${lives.tasks[one]}: ${fateOf(one)}`));
      svg.append(link);
    }
    const more = seen.size >= MOST_FAMILY ? ` The first ${MOST_FAMILY} are drawn.` : "";
    return [make("h4", {}, "Its canvas"), make("p", {}, `A line: it sent the task below. A broken line: the task below follows it.${more}`),
            make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Canvas" }, svg)];
  }

  function logOf(events) {
    const begin = events[0].t - 0.5, end = events.at(-1).t + (events.some((event) => event.kind === "finished") ? 1 : 6);
    const lines = [];
    for (const [node, own] of lives.logs) for (const [t, text] of own) if (t !== null && t >= begin && t <= end) lines.push([t, node, text]);
    lines.sort((one, other) => one[0] - other[0]);
    const shown = lines.slice(0, MOST_LOG_LINES), head = make("h4", {}, "What the nodes logged in these seconds");
    if (!shown.length) return [head, make("p", {}, "No line of these seconds is in this report; the folder logs of the run has all.")];
    const more = lines.length > shown.length ? [make("p", {}, `${lines.length - shown.length} more lines of these seconds are left out.`)] : [];
    return [head, make("ol", { class: "log", tabindex: "0", "aria-label": "Log lines" }, ...shown.map(([t, node, text]) => make("li", {}, make("b", {}, `${t.toFixed(3)} ${node} `), text))), ...more];
  }

  function story(number) {
    const parts = [], name = word(lives.names[number]), note = word(lives.notes[number]), result = word(lives.results[number]);
    const row = (head, value) => value ? [make("dt", {}, head), make("dd", {}, value)] : [];
    const parent = lives.parents[number];
    parts.push(make("dl", { class: "reason" }, ...row("Task", name), ...row("Fate", make("span", { class: `fate ${fateOf(number)}` }, fateOf(number) === "unsent" ? "unsent: nobody intended to send it" : fateOf(number))),
      ...row("Row", [word(lives.statuses[number]), result].filter(Boolean).join(": ")), ...row("Also", note),
      ...(parent >= 0 ? row("Sent by", make("a", { href: href(parent) }, `${word(lives.names[parent])} ${lives.tasks[parent]}`)) : [])));
    return parts;
  }

  function showLife(number, takeFocus) {
    const place = byId("life"), events = eventsOf(number), head = make("h3", { tabindex: "-1", id: "life-head" }, "Task ", make("code", {}, lives.tasks[number]));
    place.replaceChildren(head, ...story(number));
    if (events.length) {
      place.append(drawLife(number, events, Math.max(place.clientWidth - 34, 260)));
      const until = events.some((event) => event.kind === "finished") ? events.at(-1).t : Infinity;
      const met = lives.faults.filter(([from, healed]) => from <= until && (healed === null || healed >= events[0].t));
      if (met.length) place.append(make("p", {}, `In these seconds: ${met.map(([from, healed, text]) => `${text}, from ${seconds(from)} until ${healed === null ? "the end" : seconds(healed)}`).join("; ")}.`));
      const heads = ["second of the run", "after", "where", "event", "more"];
      const rows = events.map((event) => make("tr", {}, make("th", { scope: "row" }, event.t.toFixed(4)), make("td", {}, `+${(event.t - events[0].t).toFixed(4)}`), make("td", {}, event.where), make("td", {}, event.kind), make("td", {}, event.text)));
      place.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Events of the task" }, make("table", {}, make("caption", {}, "Events of the task"),
        make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))), make("tbody", {}, ...rows))));
    } else place.append(make("p", {}, "No journal tells of it."));
    const traceback = lives.tracebacks[number];
    if (traceback) place.append(make("h4", {}, "Its traceback"), make("pre", {}, traceback));
    const family = drawFamily(number);
    if (family) place.append(...family);
    if (events.length) place.append(...logOf(events));
    if (takeFocus) { head.focus({ preventScroll: true }); place.scrollIntoView({ block: "start" }); }
  }

  function follow() {
    const [, name, value] = location.hash.match(/^#(task|fate)=(.*)$/) || [];
    if (!name || !lives) return;
    let text = value;
    try { text = decodeURIComponent(value); } catch { /* It is no encoding, so that it is taken as it is. */ }
    if (name === "fate") {
      byId("fate").value = text; byId("find").value = ""; search();
      byId("tasks").scrollIntoView(); byId("find").focus({ preventScroll: true });
      return;
    }
    const number = numbers.get(text);
    if (number === undefined) {
      const said = lives.unsent.filter(([, task]) => task === text), [, , called] = said[0] || [];
      const befores = said.map(([before]) => make("li", {}, make("a", { href: href(before) }, `${word(lives.names[before])} ${lives.tasks[before]}`)));
      if (said.length) byId("life").replaceChildren(make("h3", { tabindex: "-1" }, "Task ", make("code", {}, text)), make("p", {}, `${called} was never sent. It should have followed:`), make("ul", {}, ...befores));
      else byId("life").replaceChildren(make("h3", { tabindex: "-1" }, "Task ", make("code", {}, text)), make("p", {}, "Its life is not in this report: it was never sent, or it is not in the sample. The journal in the run folder has all."));
      byId("tasks").scrollIntoView(); byId("life").firstChild.focus({ preventScroll: true });
    } else showLife(number, true);
  }

  async function begin() {
    showPlots();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showPlots);
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; showPlots(); if (lives) { const [, id] = location.hash.match(/^#task=(.*)$/) || []; if (id && numbers.has(decodeURIComponent(id))) showLife(numbers.get(decodeURIComponent(id)), false); } } });
    if (!byId("find")) { document.documentElement.dataset.ready = "yes"; return; }
    lives = await unpacked(byId("lives").textContent);
    byId("lives").remove();
    numbers = new Map(lives.tasks.map((task, number) => [task, number]));
    children = new Map();
    lives.parents.forEach((parent, number) => { if (parent >= 0) { if (!children.has(parent)) children.set(parent, []); children.get(parent).push(number); } });
    if (lives.fates.some((_, number) => fateOf(number) !== "ok")) byId("fate").value = "!ok";
    search();
    byId("find").addEventListener("input", () => { byId("fate").value = ""; search(); });
    byId("find").addEventListener("keydown", (event) => { if (event.key === "Enter") { const [first] = search(); if (first !== undefined) location.hash = href(first).slice(1); } });
    byId("fate").addEventListener("change", search);
    addEventListener("hashchange", follow);
    follow();
    document.documentElement.dataset.ready = "yes";
  }

  begin().catch((error) => {
    const found = byId("found");
    if (found) found.textContent = `The lives cannot be read: ${error}. A browser of 2023 or later is needed.`;
    throw error;
  });
})();
