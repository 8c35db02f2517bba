// One column: what one model answers, how fast, and which version it was.

import { isAbort } from "../core/api.js";
import { h } from "../core/dom.js";
import { count, digits, milliseconds } from "../core/format.js";
import { differences } from "./difference.js";
import { answer } from "./stream.js";

function statistic(title) {
  const value = h("dd", {}, "–");
  return { value, element: h("div", {}, h("dt", {}, title), value) };
}

/** `{element, text(), run(options, signal), compare(reference)}` */
export function answerColumn(model) {
  const text = document.createTextNode("");
  const output = h(
    "div",
    { class: "answer-text", tabindex: 0, role: "group", "aria-label": `Answer of ${model}` },
    text,
  );
  const version = h("p", { class: "muted answer-version" });
  const note = h("p", { class: "answer-note" });
  const stats = {
    rate: statistic("tokens/s"),
    ttft: statistic("first token"),
    tokens: statistic("tokens"),
  };
  const element = h(
    "article",
    { class: "card answer", "data-model": model, "data-state": "waiting" },
    h("header", {}, h("h2", { class: "reference" }, model), version),
    h("dl", { class: "answer-stats" }, Object.values(stats).map((each) => each.element)),
    output,
    note,
  );

  function finish(state, message) {
    element.dataset.state = state;
    note.textContent = message;
  }

  async function run(options, signal) {
    const started = performance.now();
    let [first, tokens] = [null, 0];
    const onStart = (reference) => {
      element.dataset.state = "streaming";
      version.textContent = reference && reference !== model ? `answered by ${reference}` : "";
    };
    let reason = "";
    try {
      for await (const piece of answer({ ...options, model }, { signal, onStart })) {
        reason = piece.finish ?? reason;
        tokens = piece.tokens ?? tokens + (piece.text ? 1 : 0);
        if (!piece.text) continue;
        const now = performance.now();
        first ??= now;
        text.appendData(piece.text);
        showSpeed(now, started, first, tokens);
      }
      stats.tokens.value.textContent = count(tokens);
      finish("done", reason === "length" ? "stopped at the token limit" : "");
      if (!text.length) note.textContent = "an empty answer";
    } catch (error) {
      if (isAbort(error)) finish("stopped", "stopped");
      else finish("failed", error.message);
    }
  }

  function showSpeed(now, started, first, tokens) {
    stats.ttft.value.textContent = milliseconds(first - started);
    stats.tokens.value.textContent = count(tokens);
    // The first token's time is in the other number.
    if (tokens < 2 || now <= first) return;
    stats.rate.value.textContent = digits(((tokens - 1) * 1000) / (now - first));
  }

  function compare(reference) {
    if (reference === null) {
      output.replaceChildren(text);
      return;
    }
    const pieces = differences(reference, text.data);
    const shown = pieces.map(([piece, differs]) => (differs ? h("mark", {}, piece) : piece));
    output.replaceChildren(...shown);
    const same = pieces.every(([, differs]) => !differs) && reference === text.data;
    if (element.dataset.state === "done" && same) note.textContent = "the same answer";
  }

  return { element, text: () => text.data, run, compare };
}
