// The table of adapters: rows are kept while nothing about them changes.

import { h } from "../core/dom.js";
import { ago, bytes, compact, count, NONE, when } from "../core/format.js";
import { stateMark, tags } from "./state.js";

const COLUMNS = [
  { key: "reference", title: "Adapter" },
  { key: "state", title: "State" },
  { key: "slot", title: "Slot", number: true, optional: true },
  { key: "active_requests", title: "Active", number: true, optional: true },
  { key: "num_parameters", title: "Parameters", number: true, optional: true },
  { key: "bytes", title: "Size", number: true, optional: true },
  { key: "last_used", title: "Last used", optional: true },
  { key: "created", title: "Created", optional: true },
];

export const SORTABLE = COLUMNS.map((column) => column.key);

function cells(info) {
  return {
    slot: info.slot === null ? NONE : String(info.slot),
    active_requests: info.active_requests ? count(info.active_requests) : NONE,
    num_parameters: compact(info.num_parameters),
    bytes: bytes(info.bytes),
    last_used: ago(info.last_used),
    created: when(info.created),
  };
}

function makeRow(info, linkTo) {
  const link = h(
    "a",
    { class: "reference", href: linkTo(info.reference) },
    info.name,
    h("span", { class: "version" }, `@${info.version}`),
  );
  const texts = cells(info);
  const open = (event) => {
    // A click that ends a selection of text, or on the link itself, is not ours.
    if (!event.target.closest("a") && getSelection().isCollapsed) link.click();
  };
  return h(
    "tr",
    { "data-reference": info.reference, onclick: open },
    h("td", { class: "name" }, link, h("span", { class: "tags" }, tags(info))),
    h("td", {}, stateMark(info)),
    COLUMNS.slice(2).map((column) =>
      h(
        "td",
        { class: `${column.number ? "number" : ""} ${column.optional ? "optional" : ""}` },
        texts[column.key],
      ),
    ),
  );
}

/**
 * @param linkTo address of the panel for a reference
 * @param onSort called with a column's key
 */
export function adapterTable({ linkTo, onSort }) {
  const heads = new Map();
  const head = h("tr", {}, COLUMNS.map((column) => {
    const button = h("button", { type: "button", onclick: () => onSort(column.key) }, column.title);
    const cell = h(
      "th",
      {
        scope: "col",
        class: `${column.number ? "number" : ""} ${column.optional ? "optional" : ""}`,
      },
      button,
    );
    heads.set(column.key, cell);
    return cell;
  }));
  const body = h("tbody");
  const element = h(
    "table",
    { class: "adapters" },
    h("caption", { class: "unseen" }, "Adapters"),
    h("thead", {}, head),
    body,
  );
  let rows = new Map();

  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    next?.querySelector("a").focus();
    event.preventDefault();
  });

  return {
    element,
    showSort(key, descending) {
      for (const [name, cell] of heads) {
        if (name === key) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      }
    },
    showRows(infos) {
      const focused = document.activeElement?.closest?.("tr")?.dataset.reference;
      const next = new Map();
      for (const info of infos) {
        // The texts count too: "5 s ago" grows old while the adapter stays the same.
        const print = JSON.stringify([info, cells(info), linkTo(info.reference)]);
        const known = rows.get(info.reference);
        next.set(
          info.reference,
          known?.print === print ? known : { print, row: makeRow(info, linkTo) },
        );
      }
      const wanted = [...next.values()].map(({ row }) => row);
      const present = [...body.children];
      if (wanted.length !== present.length || wanted.some((row, index) => row !== present[index])) {
        body.replaceChildren(...wanted);
        if (focused) next.get(focused)?.row.querySelector("a").focus({ preventScroll: true });
      }
      rows = next;
    },
    select(reference) {
      for (const row of body.children) {
        if (row.dataset.reference === reference) row.setAttribute("aria-selected", "true");
        else row.removeAttribute("aria-selected");
      }
    },
    focus(reference) {
      rows.get(reference)?.row.querySelector("a").focus();
    },
  };
}
