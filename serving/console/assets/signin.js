// The page a server with keys shows first.

import { admin } from "./core/api.js";
import { field, h, messageBox } from "./core/dom.js";
import { accept, signInReason, useKey } from "./core/session.js";

/** Ask the server what this visitor may do; throws what is neither yes nor "not an admin". */
export async function probe() {
  try {
    await admin.status();
    accept("admin");
  } catch (error) {
    // 404: a server without the admin API still has a playground.
    if (error.status !== 403 && error.status !== 404) throw error;
    accept("inference");
  }
}

export function signInPage() {
  const message = messageBox();
  const input = h("input", {
    type: "password",
    name: "key",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "key-hint",
  });
  const button = h("button", { type: "submit", class: "button primary" }, "Sign in");
  async function submit(event) {
    event.preventDefault();
    const value = input.value.trim();
    if (!value) return;
    if (!/^[\x21-\x7e]+$/.test(value)) {
      message.show("A key has no spaces and only plain ASCII characters.");
      return;
    }
    button.disabled = true;
    message.clear();
    useKey(value);
    try {
      await probe();
    } catch (error) {
      message.show(error.message);
      input.select();
    } finally {
      button.disabled = false;
    }
  }
  const reason = signInReason();
  if (reason) message.show(reason, "note");
  const element = h(
    "section",
    { class: "sign-in card", "aria-labelledby": "sign-in-title" },
    h("h1", { id: "sign-in-title" }, "Sign in"),
    h(
      "form",
      { onsubmit: submit, novalidate: true },
      field("API key", input),
      message.element,
      button,
    ),
    h(
      "p",
      { class: "hint", id: "key-hint" },
      "The key stays in this tab and is forgotten when you close it.",
    ),
  );
  return { element, focus: () => input.focus() };
}
