// The live page: reads /metrics every two seconds and draws the last five minutes.

import { isAbort, send } from "../core/api.js";
import { h, messageBox, poll } from "../core/dom.js";
import { count, digits, milliseconds } from "../core/format.js";
import { lineChart } from "./chart.js";
import { busiest, points, readScrape, totalOf, WINDOW_SECONDS } from "./history.js";

const SCRAPE_SECONDS = 2;
const TOP = 5;
const COLORS = { all: 0, others: 6 };

// Kept while the visitor looks at other pages; old scrapes fall out by themselves.
let scrapes = [];

/** Gives each name one of colours 1 to 5 and lets it keep it while it is among the top. */
function colorKeeper() {
  const taken = new Map();
  return (names) => {
    for (const name of taken.keys()) if (!names.includes(name)) taken.delete(name);
    for (const name of names) {
      if (taken.has(name)) continue;
      const used = new Set(taken.values());
      taken.set(
        name,
        Array.from({ length: TOP }, (_, index) => index + 1).find((color) => !used.has(color)),
      );
    }
    return taken;
  };
}

function rateSeries(all, name, adapter, colorsFor) {
  const valueOf = (read) => all.map((entry) => (entry.missing ? null : read(entry)));
  const total = {
    label: adapter || "all",
    color: COLORS.all,
    area: true,
    values: valueOf((entry) => totalOf(entry[name])),
  };
  if (adapter) return [total];
  const names = busiest(all, name, TOP);
  const colors = colorsFor(names);
  const each = names.map(
    (label) => ({
      label,
      color: colors.get(label),
      values: valueOf((entry) => entry[name].get(label) ?? 0),
    }),
  );
  return [total, ...each];
}

function tile(title) {
  const value = h("p", { class: "value" }, "–");
  const detail = h("p", { class: "muted" });
  return {
    element: h("div", { class: "tile" }, h("h2", {}, title), value, detail),
    show(text, more = "") {
      value.textContent = text;
      detail.textContent = more;
    },
  };
}

export function livePage() {
  const stopRequests = new AbortController();
  const message = messageBox();
  const charts = {
    tokens: lineChart({ title: "Generated tokens", unit: "tokens/s" }),
    requests: lineChart({ title: "Requests ended", unit: "requests/s" }),
    ttft: lineChart({ title: "Time to first token", unit: "ms" }),
    gap: lineChart({ title: "Inter-token latency", unit: "ms" }),
    slots: lineChart({ title: "Slots of the bank", unit: "slots" }),
    queue: lineChart({ title: "Requests in the engine", unit: "requests" }),
  };
  const tiles = {
    tokens: tile("Throughput"),
    requests: tile("Requests"),
    ttft: tile("Time to first token"),
    gap: tile("Inter-token latency"),
    slots: tile("Slots used"),
    queue: tile("Queue"),
  };
  const colors = { tokens: colorKeeper(), requests: colorKeeper() };
  const choice = h(
    "select",
    { "aria-label": "Adapter", onchange: draw },
    h("option", { value: "" }, "All adapters"),
  );
  const element = h(
    "div",
    { class: "live-page" },
    h("h1", { class: "unseen" }, "Live"),
    h(
      "div",
      { class: "toolbar" },
      choice,
      h("span", { class: "grow" }),
      h("p", { class: "muted" }, "last 5 minutes, every 2 s; latencies over 10 s"),
    ),
    message.element,
    h("div", { class: "tiles" }, Object.values(tiles).map((each) => each.element)),
    h("div", { class: "charts" }, Object.values(charts).map((each) => each.element)),
  );

  function showChoice() {
    const names = [...(scrapes.at(-1)?.adapters.keys() ?? [])].sort();
    const present = [...choice.options].slice(1).map((option) => option.value);
    if (names.join("\n") === present.join("\n")) return;
    const chosen = choice.value;
    choice.replaceChildren(
      choice.options[0],
      ...names.map((name) => h("option", { value: name }, name)),
    );
    choice.value = names.includes(chosen) ? chosen : "";
  }

  function draw() {
    const adapter = choice.value;
    const all = points(scrapes, adapter);
    const times = all.map((entry) => entry.time);
    const end = scrapes.at(-1)?.time ?? Date.now();
    const frame = { times, start: end - WINDOW_SECONDS * 1000, end };
    const valueOf = (read) => all.map((entry) => (entry.missing ? null : read(entry) ?? null));
    const quantiles = (name) => [
      { label: "p95", color: 3, values: valueOf((entry) => entry[name].p95) },
      { label: "p50", color: 0, values: valueOf((entry) => entry[name].p50) },
    ];
    charts.tokens.draw({ ...frame, series: rateSeries(all, "tokens", adapter, colors.tokens) });
    charts.requests.draw({
      ...frame,
      series: [
        ...rateSeries(all, "requests", adapter, colors.requests),
        {
          label: "refused or failed",
          color: COLORS.others,
          values: valueOf((entry) => entry.failed),
        },
      ],
    });
    charts.ttft.draw({ ...frame, series: quantiles("ttft") });
    charts.gap.draw({ ...frame, series: quantiles("gap") });
    charts.slots.draw({ ...frame, series: [
      { label: "used", color: 0, area: true, values: valueOf((entry) => entry.slots.used) },
      { label: "pinned", color: 2, values: valueOf((entry) => entry.slots.pinned) },
      { label: "total", color: COLORS.others, values: valueOf((entry) => entry.slots.total) },
    ] });
    charts.queue.draw({ ...frame, series: [
      { label: "running", color: 0, area: true, values: valueOf((entry) => entry.running) },
      { label: "waiting", color: 3, values: valueOf((entry) => entry.waiting) },
    ] });
    showTiles(all.at(-1));
  }

  function showTiles(latest) {
    if (!latest || latest.missing) return;
    tiles.tokens.show(`${digits(totalOf(latest.tokens))} tokens/s`);
    tiles.requests.show(
      `${digits(totalOf(latest.requests))} /s`,
      `${digits(latest.failed)} /s refused or failed`,
    );
    tiles.ttft.show(milliseconds(latest.ttft.p95), `p95; p50 ${milliseconds(latest.ttft.p50)}`);
    tiles.gap.show(milliseconds(latest.gap.p95), `p95; p50 ${milliseconds(latest.gap.p50)}`);
    tiles.slots.show(
      count(latest.slots.used),
      `of ${count(latest.slots.total)}, ${count(latest.slots.pinned)} pinned`,
    );
    tiles.queue.show(`${count(latest.waiting)} waiting`, `${count(latest.running)} running`);
  }

  async function scrape() {
    try {
      const response = await send("metrics", { signal: stopRequests.signal });
      const text = await response.text();
      const now = Date.now();
      scrapes = [
        ...scrapes.filter(({ time }) => now - time < WINDOW_SECONDS * 1000),
        readScrape(text, now),
      ];
      message.clear();
    } catch (error) {
      if (isAbort(error)) return;
      const isForAdmins = error.status === 403;
      const hint = isForAdmins ? " On this server /metrics is for admins." : " Trying again.";
      message.show(error.message + hint);
      return;
    }
    showChoice();
    draw();
  }

  const stop = poll(SCRAPE_SECONDS, scrape);
  return {
    element,
    close() {
      stop();
      stopRequests.abort();
      for (const each of Object.values(charts)) each.close();
    },
  };
}
