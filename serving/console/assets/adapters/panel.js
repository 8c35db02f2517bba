// One adapter beside the table: facts, what can be done, aliases, metrics, lineage.

import { admin, isAbort } from "../core/api.js";
import { h, messageBox, poll } from "../core/dom.js";
import { ago, bytes, count, NONE, result, when } from "../core/format.js";
import { isAdmin } from "../core/session.js";
import { actionBar } from "./actions.js";
import { aliasSection } from "./aliases.js";
import { stateMark, tags } from "./state.js";

const REFRESH_SECONDS = 4;

function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** Nested results as flat rows, `eval.accuracy`. */
function flattened(values, prefix = "") {
  return Object.entries(values ?? {}).flatMap(([name, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? flattened(value, `${prefix}${name}.`)
      : [[prefix + name, value]],
  );
}

function shownValue(value) {
  if (typeof value === "number") return result(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

function valuesSection(title, values) {
  const pairs = flattened(values);
  if (!pairs.length) return null;
  return h(
    "section",
    {},
    h("h3", {}, title),
    facts(pairs.map(([name, value]) => [name, shownValue(value)])),
  );
}

function lineage(info, linkTo) {
  const parent = info.parent
    ? h("a", { class: "reference", href: linkTo(info.parent) }, info.parent)
    : "none: trained from the base";
  const fits = { true: "yes", false: "no, it was made for another" }[info.base_matches] ?? NONE;
  const pairs = [["Parent", parent], ["Fits this base", fits], ["Created", when(info.created)]];
  return h("section", {}, h("h3", {}, "Lineage"), facts(pairs));
}

function filesSection(files) {
  const entries = Object.entries(files ?? {});
  if (!entries.length) return null;
  const size = (entry) => h("span", { title: `sha256 ${entry.sha256}` }, bytes(entry.bytes));
  const pairs = entries.map(([name, entry]) => [name, size(entry)]);
  return h("section", {}, h("h3", {}, "Files"), facts(pairs));
}

function configSection(config) {
  if (!config || !Object.keys(config).length) return null;
  return h(
    "details",
    {},
    h("summary", {}, "Training configuration"),
    h("pre", { tabindex: 0 }, JSON.stringify(config, null, 2)),
  );
}

function stateFacts(info) {
  return facts([
    ["Slot", info.slot === null ? NONE : String(info.slot)],
    ["Active requests", count(info.active_requests)],
    ["Last used", ago(info.last_used)],
    ["Type", info.peft_type ?? NONE],
    ["Parameters", count(info.num_parameters)],
    ["Size", bytes(info.bytes)],
  ]);
}

/**
 * @param linkTo address of the panel for a reference
 * @param close called when the visitor closes the panel
 * @param onChange called when something was done to the adapter
 */
export function adapterPanel({ reference, linkTo, close, onChange }) {
  const [name] = reference.split("@");
  const stopRequests = new AbortController();
  const message = messageBox();
  const title = h("h2", { id: "panel-title", class: "reference" }, reference);
  const head = h("div", { class: "panel-state" });
  const failure = h("p", { class: "message", "data-kind": "error", hidden: true });
  const live = h("div");
  const still = h("div", { class: "stack" });
  const changed = async () => {
    await load();
    onChange();
  };
  const actions = actionBar({ reference, changed });
  const aliases = aliasSection({ name, signal: stopRequests.signal, changed });
  const tryIt = h(
    "a",
    { class: "button", href: `#/playground?model=${encodeURIComponent(reference)}` },
    "Try in the playground",
  );
  const element = h(
    "aside",
    { class: "panel", "aria-labelledby": "panel-title", tabindex: -1 },
    h(
      "header",
      {},
      title,
      h(
        "button",
        { type: "button", class: "button quiet icon", "aria-label": "Close", onclick: close },
        "✕",
      ),
    ),
    head,
    message.element,
    failure,
    h("div", { class: "panel-actions" }, actions.element, tryIt),
    actions.message,
    live,
    aliases.element,
    still,
  );
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented) close();
  });
  let shownStill = "";

  async function load() {
    try {
      const info = await admin.adapter(reference, { signal: stopRequests.signal });
      message.clear();
      show(info);
    } catch (error) {
      if (isAbort(error)) return;
      message.show(error.message);
      if (error.status === 403) actions.hide();
    }
  }

  function show(info) {
    head.replaceChildren(stateMark(info), ...tags(info));
    failure.hidden = !info.error;
    failure.textContent = info.error ?? "";
    live.replaceChildren(stateFacts(info));
    actions.show(info);
    aliases.setVersion(info.version);
    const print = JSON.stringify([
      info.metrics,
      info.parent,
      info.files,
      info.training_config,
      info.base_matches,
    ]);
    // What never changes is left alone, so that open details and selections stay.
    if (print === shownStill) return;
    shownStill = print;
    const sections = [
      valuesSection("Metrics", info.metrics),
      lineage(info, linkTo),
      filesSection(info.files),
      configSection(info.training_config),
    ];
    still.replaceChildren(...sections.filter(Boolean));
  }

  if (isAdmin()) aliases.load();
  const stop = poll(REFRESH_SECONDS, load);
  return {
    reference,
    element,
    focus: () => element.focus(),
    close() {
      stop();
      stopRequests.abort();
    },
  };
}
