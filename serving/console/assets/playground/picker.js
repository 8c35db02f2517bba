// Choosing the models that answer: the base, adapters, blends.

import { admin, isAbort, models } from "../core/api.js";
import { h, messageBox, uniqueId } from "../core/dom.js";
import { isAdmin } from "../core/session.js";

// Browsers open six connections to one server; a seventh answer would wait for another to end.
export const MOST = 6;
const SUGGESTIONS = 20;
const TYPING_MILLISECONDS = 150;

/** `{element, chosen()}`; `onChange` is called when the choice changes. */
export function modelPicker({ first, onChange, signal }) {
  const listId = uniqueId("models");
  const hintId = uniqueId("hint");
  const message = messageBox();
  const chips = h("ul", { class: "chips", "aria-label": "Chosen models" });
  const suggestions = h("datalist", { id: listId });
  const input = h(
    "input",
    {
      type: "text",
      id: uniqueId("model"),
      list: listId,
      placeholder: "Add a model",
      "aria-describedby": hintId,
      spellcheck: "false",
      autocapitalize: "none",
      autocomplete: "off",
      oninput: onType,
    },
  );
  const form = h(
    "form",
    { class: "picker-form", onsubmit: onSubmit, novalidate: true },
    input,
    h("button", { class: "button" }, "Add"),
  );
  const element = h(
    "div",
    { class: "field" },
    h("label", { for: input.id }, "Models"),
    chips,
    form,
    suggestions,
    h("p", { class: "hint", id: hintId }, "name, name@alias, or a blend a:0.7+b:0.3"),
    message.element,
  );
  let chosen = [...new Set(first)].slice(0, MOST);
  let known = { base: null, adapters: [] };
  let typing = null;

  function show() {
    chips.replaceChildren(...chosen.map((model) => h(
      "li",
      { class: "chip" },
      h("span", { class: "reference" }, model),
      model === known.base ? h("span", { class: "muted" }, "base") : null,
      h(
        "button",
        {
          type: "button",
          class: "chip-remove",
          "aria-label": `Remove ${model}`,
          onclick: () => remove(model),
        },
        "✕",
      ),
    )));
  }

  function remove(model) {
    chosen = chosen.filter((each) => each !== model);
    message.clear();
    show();
    onChange();
    input.focus();
  }

  function onSubmit(event) {
    event.preventDefault();
    const model = input.value.trim();
    if (!model) return;
    if (chosen.length >= MOST) {
      message.show(`At most ${MOST} at once: browsers open no more connections to a server.`);
      return;
    }
    message.clear();
    if (!chosen.includes(model)) chosen = [...chosen, model];
    input.value = "";
    show();
    onChange();
  }

  function onType() {
    clearTimeout(typing);
    typing = setTimeout(suggest, TYPING_MILLISECONDS);
  }

  async function found(query) {
    if (!isAdmin()) {
      return known.adapters.filter((model) => model.includes(query)).slice(0, SUGGESTIONS);
    }
    const { data } = await admin.list({ query, limit: SUGGESTIONS }, { signal });
    return data.map((info) => info.reference);
  }

  async function suggest() {
    // In a blend the last part is what is being typed.
    const [, before, query] = /^(.*\+)?([^+]*)$/.exec(input.value.trim());
    try {
      const names = await found(query ?? "");
      const offered = [
        ...(known.base && !before ? [known.base] : []),
        ...names.map((name) => (before ?? "") + name),
      ];
      suggestions.replaceChildren(...offered.map((value) => h("option", { value })));
    } catch (error) {
      if (!isAbort(error)) message.show(error.message);
    }
  }

  async function load() {
    try {
      known = await models({ signal });
    } catch (error) {
      if (!isAbort(error)) message.show(error.message);
      return;
    }
    if (known.base && chosen.length < MOST && !chosen.includes(known.base)) chosen = [
      known.base,
      ...chosen,
    ];
    show();
    onChange();
    suggest();
  }

  show();
  load();
  return { element, chosen: () => chosen };
}
