// Scrapes of /metrics over time, and the rates and quantiles between them.

import { quantile, samples } from "./prometheus.js";

const REQUESTS = "propulsion_serve_requests_total";
const TOKENS = "propulsion_serve_generated_tokens_total";
const TTFT = "propulsion_serve_ttft_seconds_bucket";
const GAP = "propulsion_serve_inter_token_seconds_bucket";
const SLOTS = "propulsion_serve_slots";
const RUNNING = "vllm:num_requests_running";
const WAITING = "vllm:num_requests_waiting";
const WANTED = new Set([REQUESTS, TOKENS, TTFT, GAP, SLOTS, RUNNING, WAITING]);
const FAILED = new Set(["client_error", "server_error"]);

export const WINDOW_SECONDS = 300;
// Two seconds hold too few first tokens for a calm 95th percentile.
const QUANTILE_SECONDS = 10;
// Longer between two scrapes than this, and the line has a gap.
const GAP_SECONDS = 7;

function adapterSeries() {
  return { requests: 0, failed: 0, tokens: 0, ttft: new Map(), gap: new Map() };
}

/** One scrape, reduced; `time` in milliseconds. */
export function readScrape(text, time) {
  const adapters = new Map();
  const scrape = { time, adapters, slots: {}, running: null, waiting: null };
  const of = ({ adapter }) => {
    if (!adapters.has(adapter)) adapters.set(adapter, adapterSeries());
    return adapters.get(adapter);
  };
  for (const { name, labels, value } of samples(text, WANTED)) {
    if (name === REQUESTS) {
      const series = of(labels);
      series.requests += value;
      if (FAILED.has(labels.outcome)) series.failed += value;
    } else if (name === TOKENS) of(labels).tokens += value;
    else if (name === TTFT) of(labels).ttft.set(
      Number(labels.le.replace("+Inf", "Infinity")),
      value,
    );
    else if (name === GAP) of(labels).gap.set(Number(labels.le.replace("+Inf", "Infinity")), value);
    else if (name === SLOTS) scrape.slots[labels.state] = value;
    else if (name === RUNNING) scrape.running = (scrape.running ?? 0) + value;
    else if (name === WAITING) scrape.waiting = (scrape.waiting ?? 0) + value;
  }
  return scrape;
}

// A counter that fell was started anew: all it holds has come since.
const increase = (before, now) => (now >= before ? now - before : now);

function increases(before, now, name) {
  const grown = new Map();
  for (const [adapter, series] of now.adapters) {
    grown.set(adapter, increase(before.adapters.get(adapter)?.[name] ?? 0, series[name]));
  }
  return grown;
}

function bucketIncrease(before, now, name, adapter) {
  const grown = new Map();
  for (const [label, series] of now.adapters) {
    if (adapter && label !== adapter) continue;
    const old = before.adapters.get(label)?.[name];
    const restarted = (old?.get(Infinity) ?? 0) > (series[name].get(Infinity) ?? 0);
    for (const [bound, value] of series[name]) {
      const grew = restarted ? value : value - (old?.get(bound) ?? 0);
      grown.set(bound, (grown.get(bound) ?? 0) + grew);
    }
  }
  return grown;
}

const sum = (values) => [...values].reduce((all, value) => all + value, 0);

/**
 * What the charts draw, one entry for each scrape but the first:
 * `{time, tokens, requests: Map by adapter per second, failed, ttft, gap: {p50, p95} in ms, …}`,
 * or `{time, missing: true}` where too long passed since the scrape before.
 */
export function points(scrapes, adapter) {
  const found = [];
  for (let index = 1; index < scrapes.length; index += 1) {
    const [before, now] = [scrapes[index - 1], scrapes[index]];
    const seconds = (now.time - before.time) / 1000;
    if (seconds > GAP_SECONDS) {
      found.push({ time: now.time, missing: true });
      continue;
    }
    found.push(point(before, now, windowStart(scrapes, index), seconds, adapter));
  }
  return found;
}

/** The scrape from which on quantiles count: inside their window, with no gap since. */
function windowStart(scrapes, index) {
  const seconds = (from, to) => (scrapes[to].time - scrapes[from].time) / 1000;
  const counts = (start) =>
    seconds(start, index) <= QUANTILE_SECONDS && seconds(start, start + 1) <= GAP_SECONDS;
  let start = index - 1;
  while (start > 0 && counts(start - 1)) start -= 1;
  return scrapes[start];
}

function point(before, now, start, seconds, adapter) {
  const rates = (name) => {
    const all = [...increases(before, now, name)].filter(
      ([label]) => !adapter || label === adapter,
    );
    return new Map(all.map(([label, grown]) => [label, grown / seconds]));
  };
  const latency = (name) => {
    const buckets = bucketIncrease(start, now, name, adapter);
    const at = (q) => {
      const value = quantile(q, buckets);
      return value === null ? null : value * 1000;
    };
    return { p50: at(0.5), p95: at(0.95) };
  };
  return {
    time: now.time,
    tokens: rates("tokens"),
    requests: rates("requests"),
    failed: sum(rates("failed").values()),
    ttft: latency("ttft"),
    gap: latency("gap"),
    slots: now.slots,
    running: now.running,
    waiting: now.waiting,
  };
}

export const totalOf = (rates) => sum(rates.values());

/** The `limit` adapters with the most of `name` over all points, most first, none without any. */
export function busiest(allPoints, name, limit) {
  const totals = new Map();
  for (const entry of allPoints) {
    for (const [label, rate] of entry[name] ?? []) totals.set(
      label,
      (totals.get(label) ?? 0) + rate,
    );
  }
  return [...totals].filter(
    ([, total]) => total > 0,
  ).sort((a, b) => b[1] - a[1]).slice(0, limit).map(([label]) => label);
}
