// Asking before something that hurts.

import { h, uniqueId } from "./dom.js";

/** Resolves to whether the visitor agreed; Escape and a click outside mean no. */
export function confirmation({ title, text, action, dangerous = false }) {
  return new Promise((resolve) => {
    const titleId = uniqueId("dialog");
    const textId = uniqueId("dialog");
    const cancel = h("button", { type: "button", class: "button" }, "Cancel");
    const agree = h(
      "button",
      { type: "button", class: dangerous ? "button danger" : "button primary" },
      action,
    );
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": titleId, "aria-describedby": textId },
      h("h2", { id: titleId }, title),
      h("p", { id: textId }, text),
      h("div", { class: "dialog-actions" }, cancel, agree),
    );
    let answer = false;
    cancel.addEventListener("click", () => dialog.close());
    agree.addEventListener("click", () => {
      answer = true;
      dialog.close();
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    cancel.focus();
  });
}
