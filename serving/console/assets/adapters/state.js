// Small marks that the table and the panel share.

import { h } from "../core/dom.js";
import { percent } from "../core/format.js";
import { stateMeaning } from "./info.js";

export function stateMark(info) {
  return h(
    "span",
    { class: "state", "data-state": info.state, title: stateMeaning(info.state) },
    h("span", { class: "dot", "aria-hidden": "true" }),
    info.state,
  );
}

/** Pin, aliases, shares of split aliases, and a warning if it was made for another base. */
export function tags(info) {
  const shares = Object.entries(info.splits);
  // A split alias shows once, with its share.
  const aliases = info.aliases.filter((alias) => !(alias in info.splits));
  return [
    info.pinned ? h("span", { class: "tag pinned" }, "pinned") : null,
    aliases.map((alias) => h("span", { class: "tag" }, `@${alias}`)),
    shares.map(([alias, share]) =>
      h("span", { class: "tag split" }, `@${alias} ${percent(share)}`),
    ),
    info.base_matches === false ? h("span", { class: "tag warning" }, "other base") : null,
  ].flat().filter(Boolean);
}
