// The playground: one prompt to several models at once, their answers side by side.

import { field, h } from "../core/dom.js";
import { answerColumn } from "./answer.js";
import { modelPicker } from "./picker.js";

const DRAFT = "propulsion.playground";

/** The prompt and its settings outlive a look at another page, not the tab. */
function draft() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT)) ?? {};
  } catch {
    return {};
  }
}

function numberInput(value, attributes) {
  const input = h("input", { type: "number", required: true, ...attributes });
  input.value = value;
  return input;
}

export function playgroundPage(route) {
  const stopRequests = new AbortController();
  const kept = draft();
  const asked = route.params.getAll("model");
  const prompt = h(
    "textarea",
    { rows: 5, placeholder: "What should the models continue or answer?" },
  );
  prompt.value = kept.prompt ?? "";
  const modes = ["completion", "chat"].map((mode) => h(
    "input",
    { type: "radio", name: "mode", value: mode, checked: mode === (kept.mode ?? "completion") },
  ));
  const maxTokens = numberInput(kept.maxTokens ?? 64, { min: 1, max: 100000, step: 1 });
  const temperature = numberInput(kept.temperature ?? 0, { min: 0, max: 2, step: 0.1 });
  const sendButton = h("button", { type: "submit", class: "button primary" }, "Send");
  const stopButton = h(
    "button",
    { type: "button", class: "button danger", disabled: true, onclick: () => running?.abort() },
    "Stop",
  );
  const highlight = h("input", { type: "checkbox", checked: true, onchange: compare });
  const against = h("select", { "aria-label": "Compare with", onchange: compare });
  const comparison = h(
    "div",
    { class: "toolbar", hidden: true },
    h("label", { class: "check" }, highlight, "Mark what differs from"),
    against,
  );
  const status = h("p", { class: "muted", role: "status" });
  const answers = h("div", { class: "answers" });
  const picker = modelPicker({
    first: asked.length ? asked : kept.models ?? [],
    onChange,
    signal: stopRequests.signal,
  });
  let running = null;
  let columns = [];

  const form = h(
    "form",
    { class: "prompt-form", id: "prompt-form", onsubmit: onSubmit, novalidate: true },
    field("Prompt", prompt),
    h(
      "div",
      { class: "settings" },
      h(
        "fieldset",
        {},
        h("legend", {}, "Kind"),
        h(
          "div",
          { class: "segments" },
          modes.map((input) => h("label", {}, input, h("span", {}, input.value))),
        ),
      ),
      field("Max tokens", maxTokens),
      field("Temperature", temperature),
      h("div", { class: "send" }, sendButton, stopButton),
    ),
  );
  const element = h(
    "div",
    { class: "playground-page" },
    h("h1", { class: "unseen" }, "Playground"),
    h("section", { class: "card composer", "aria-label": "Request" }, picker.element, form),
    h("div", { class: "results-head" }, status, h("span", { class: "grow" }), comparison),
    answers,
  );

  function settings() {
    return {
      prompt: prompt.value,
      mode: modes.find((input) => input.checked).value,
      maxTokens: maxTokens.valueAsNumber,
      temperature: temperature.valueAsNumber,
    };
  }

  function keep() {
    sessionStorage.setItem(DRAFT, JSON.stringify({ ...settings(), models: picker.chosen() }));
  }

  function onChange() {
    keep();
    refresh();
  }

  function refresh() {
    sendButton.disabled = running !== null;
    stopButton.disabled = running === null;
  }

  function problem({ prompt: text, maxTokens: tokens, temperature: heat }) {
    if (!picker.chosen().length) return "Choose at least one model.";
    if (!text.trim()) return "Write a prompt first.";
    if (!Number.isInteger(tokens) || tokens < 1) return "Max tokens is a whole number from 1.";
    return heat >= 0 && heat <= 2 ? null : "Temperature is a number from 0 to 2.";
  }

  async function onSubmit(event) {
    event.preventDefault();
    if (running) return;
    const options = settings();
    const wrong = problem(options);
    status.textContent = wrong ?? "";
    if (wrong) return;
    keep();
    running = new AbortController();
    const { signal } = running;
    columns = picker.chosen().map(answerColumn);
    answers.replaceChildren(...columns.map((column) => column.element));
    comparison.hidden = true;
    refresh();
    let done = 0;
    const showProgress = () => {
      status.textContent = `${done} of ${columns.length} answers complete`;
    };
    showProgress();
    // All at once: the engine runs them in one batch.
    await Promise.all(columns.map(async (column) => {
      await column.run(options, signal);
      done += 1;
      showProgress();
    }));
    running = null;
    refresh();
    showComparison();
  }

  function showComparison() {
    comparison.hidden = columns.length < 2;
    against.replaceChildren(...columns.map((column, index) => h(
      "option",
      { value: index },
      column.element.dataset.model,
    )));
    compare();
  }

  function compare() {
    const reference = columns[Number(against.value)];
    for (const column of columns) {
      column.compare(
        highlight.checked && column !== reference && columns.length > 1 ? reference.text() : null,
      );
    }
  }

  form.addEventListener("input", keep);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const onKey = (event) => {
    if (event.key === "Escape") running?.abort();
  };
  document.addEventListener("keydown", onKey);
  return {
    element,
    close() {
      document.removeEventListener("keydown", onKey);
      running?.abort();
      stopRequests.abort();
    },
  };
}
