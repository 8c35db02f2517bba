// Editing how an alias's requests are split between versions.

import { h, messageBox } from "../core/dom.js";
import { digits } from "../core/format.js";

/**
 * @param weights version to weight, any sum
 * @param save called with version to fraction, sum 1
 * @param end called to end the split
 */
export function splitEditor({ versions, weights, isNew, save, end }) {
  const message = messageBox();
  const sum = h("output", { class: "muted" });
  const rows = h("div", { class: "split-rows" });
  const total = Object.values(weights).reduce((all, weight) => all + weight, 0) || 1;
  for (const [version, weight] of Object.entries(weights)) addRow(version, (weight / total) * 100);
  if (isNew) {
    const other = versions.find((version) => !(version in weights));
    if (other) addRow(other, 0);
  }
  showSum();

  function addRow(version, percent) {
    const offered = versions.includes(version) ? versions : [version, ...versions];
    const select = h(
      "select",
      { "aria-label": "Version" },
      offered.map((name) => h("option", { value: name }, name)),
    );
    select.value = version;
    const input = h(
      "input",
      {
        type: "number",
        min: 0,
        max: 100,
        step: "any",
        "aria-label": "Percent of requests",
        oninput: showSum,
      },
    );
    input.value = digits(percent);
    const remove = h(
      "button",
      { type: "button", class: "button quiet icon", "aria-label": `Remove ${version}` },
      "✕",
    );
    const row = h(
      "div",
      { class: "split-row" },
      select,
      input,
      h("span", { class: "muted" }, "%"),
      remove,
    );
    remove.addEventListener("click", () => {
      row.remove();
      showSum();
    });
    rows.append(row);
  }

  function read() {
    return [...rows.children].map((row) => [
      row.querySelector("select").value,
      Number(row.querySelector("input").value),
    ]);
  }

  function showSum() {
    sum.textContent = `Sum: ${digits(read().reduce((all, [, percent]) => all + percent, 0))} %`;
  }

  function submit() {
    const pairs = read().filter(([, percent]) => percent !== 0);
    const problem = whatIsWrong(pairs);
    if (problem) {
      message.show(problem);
      return;
    }
    message.clear();
    save(Object.fromEntries(pairs.map(([version, percent]) => [version, percent / 100])));
  }

  const add = () => {
    const used = read().map(([version]) => version);
    const free = versions.find((version) => !used.includes(version));
    if (free) addRow(free, 0);
    else message.show("Every version is in the split already.");
  };
  return h(
    "div",
    { class: "split-editor", role: "group", "aria-label": "Split" },
    rows,
    h(
      "div",
      { class: "split-row" },
      h("button", { type: "button", class: "button quiet", onclick: add }, "Add version"),
      sum,
    ),
    message.element,
    h(
      "div",
      { class: "split-row" },
      h("button", { type: "button", class: "button primary", onclick: submit }, "Save split"),
      isNew ? null : h("button", { type: "button", class: "button", onclick: end }, "End split"),
    ),
  );
}

function whatIsWrong(pairs) {
  if (!pairs.length) return "Give at least one version a share.";
  if (pairs.some(
    ([, percent]) => !Number.isFinite(percent) || percent < 0,
  )) return "A share is a number from 0 to 100.";
  if (new Set(pairs.map(
    ([version]) => version,
  )).size < pairs.length) return "Name each version once.";
  const sum = pairs.reduce((all, [, percent]) => all + percent, 0);
  return Math.abs(sum - 100) > 0.01 ? `The shares add up to ${digits(sum)} %, not 100 %.` : null;
}
