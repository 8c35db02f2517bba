// Small marks that the table and the panel share.

import { h } from "../core/dom.js";
import { percent } from "../core/format.js";
import { aliasesOf, sharesOf, stateMeaning } from "./info.js";

export function stateMark(info) {
  return h(
    "span",
    { class: "state", "data-state": info.state, title: stateMeaning(info.state) },
    h("span", { class: "dot", "aria-hidden": "true" }),
    info.state,
  );
}

export function tags(info) {
  const shares = sharesOf(info);
  return [
    info.pinned ? h("span", { class: "tag pinned" }, "pinned") : null,
    // A split alias shows once, with its share.
    ...aliasesOf(info).filter((alias) => !shares.some(([split]) => split === alias)).map((alias) => h("span", { class: "tag" }, `@${alias}`)),
    ...shares.map(([alias, share]) => h("span", { class: "tag split" }, `@${alias} ${percent(share)}`)),
    info.base_matches === false ? h("span", { class: "tag warning" }, "other base") : null,
  ];
}
