// What the server holds, above the table.

import { h } from "../core/dom.js";
import { bytes, count } from "../core/format.js";

function meter(label, used, total) {
  return h("meter", { min: 0, max: total || 1, value: used, "aria-label": label });
}

function tile(title, value, detail, extra) {
  return h(
    "div",
    { class: "tile" },
    h("h2", {}, title),
    h("p", { class: "value" }, value),
    extra ?? null,
    h("p", { class: "muted" }, detail),
  );
}

export function summary() {
  const element = h("div", { class: "tiles" });
  return {
    element,
    show({ slots, host, row_bytes }, total) {
      element.replaceChildren(
        tile("Adapters", count(total), "in the store"),
        tile(
          "Slots",
          count(slots.used),
          `of ${count(slots.total)}, ${count(slots.pinned)} pinned`,
          meter("Slots used", slots.used, slots.total),
        ),
        tile(
          "Host memory",
          count(host.used),
          `of ${count(host.capacity)} adapters`,
          meter("Host memory used", host.used, host.capacity),
        ),
        tile("A row of the bank", bytes(row_bytes), "for each slot"),
      );
    },
  };
}
