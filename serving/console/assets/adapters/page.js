// The adapters page: search, filter, sort and pages are the server's work, the address holds them.

import { admin, isAbort } from "../core/api.js";
import { h, messageBox, poll } from "../core/dom.js";
import { count } from "../core/format.js";
import { routeTo } from "../core/route.js";
import { currentRole } from "../core/session.js";
import { STATES, stateMeaning } from "./info.js";
import { adapterPanel } from "./panel.js";
import { summary } from "./summary.js";
import { adapterTable, SORTABLE } from "./table.js";

const PAGE_SIZE = 50;
const REFRESH_SECONDS = 4;
const TYPING_MILLISECONDS = 200;

function noAccess() {
  const element = h(
    "section",
    { class: "card empty" },
    h("h1", {}, "Adapters"),
    h("p", {}, "inference key: read only playground"),
    h(
      "p",
      { class: "muted" },
      "The list of adapters and what can be done with them need an admin key.",
    ),
    h("a", { class: "button primary", href: "#/playground" }, "Open the playground"),
  );
  return { element };
}

export function adaptersPage(firstRoute) {
  if (currentRole() === "inference") return noAccess();
  let route = firstRoute;
  let panel = null;
  let request = null;
  let typing = null;

  const search = h(
    "input",
    {
      type: "search",
      placeholder: "Search adapters",
      "aria-label": "Search adapters",
      "aria-keyshortcuts": "/",
      spellcheck: "false",
      oninput: onType,
    },
  );
  const filter = h(
    "select",
    { "aria-label": "State", onchange: () => change({ state: filter.value, page: "" }) },
    h("option", { value: "" }, "All states"),
    STATES.map((state) => h("option", { value: state }, `${state}: ${stateMeaning(state)}`)),
  );
  const message = messageBox();
  const tiles = summary();
  const linkTo = (reference) => routeTo("adapters", reference, route.params);
  const table = adapterTable({ linkTo, onSort });
  const range = h("p", { class: "muted range", role: "status" });
  const previous = h(
    "button",
    { type: "button", class: "button", onclick: () => turn(-1) },
    "Previous",
  );
  const next = h("button", { type: "button", class: "button", onclick: () => turn(1) }, "Next");
  const empty = h("p", { class: "empty muted", hidden: true }, "No adapter matches.");
  const list = h(
    "section",
    { class: "list", "aria-labelledby": "adapters-title" },
    h("h1", { id: "adapters-title", class: "unseen" }, "Adapters"),
    tiles.element,
    h("div", { class: "toolbar" }, search, filter, h("span", { class: "grow" }), range),
    message.element,
    h("div", { class: "card table-card" }, table.element, empty),
    h("div", { class: "pager" }, h("span", { class: "grow" }), previous, next),
  );
  const element = h("div", { class: "adapters-page" }, list);

  function page() {
    return Math.max(0, (Number.parseInt(route.params.get("page"), 10) || 1) - 1);
  }

  function sort() {
    const wanted = route.params.get("sort") ?? "";
    return SORTABLE.includes(wanted.replace(/^-/, "")) ? wanted : "reference";
  }

  function change(values) {
    const params = new URLSearchParams(route.params);
    for (const [name, value] of Object.entries(values)) {
      if (value) params.set(name, value);
      else params.delete(name);
    }
    // Typing and sorting are not steps to go back through.
    history.replaceState(null, "", routeTo("adapters", route.item, params));
    route = { ...route, params };
    load();
  }

  function onType() {
    clearTimeout(typing);
    typing = setTimeout(
      () => change({ query: search.value.trim(), page: "" }),
      TYPING_MILLISECONDS,
    );
  }

  function onSort(name) {
    change({ sort: sort() === name ? `-${name}` : name, page: "" });
  }

  function turn(step) {
    const target = page() + 1 + step;
    change({ page: target > 1 ? String(target) : "" });
    list.scrollIntoView({ block: "start" });
  }

  async function load() {
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    const order = sort();
    const values = {
      query: route.params.get("query") ?? "",
      state: route.params.get("state") ?? "",
      sort: order,
      limit: PAGE_SIZE,
      offset: page() * PAGE_SIZE,
    };
    try {
      const [answer, status] = await Promise.all([
        admin.list(values, { signal }),
        admin.status({ signal }),
      ]);
      message.clear();
      show(answer, order, values.offset);
      const isPart = values.query || values.state;
      const all = isPart ? await admin.list({ limit: 1 }, { signal }) : answer;
      tiles.show(status, all.total);
    } catch (error) {
      if (!isAbort(error)) message.show(`${error.message} Trying again.`);
    }
  }

  function show(answer, order, offset) {
    table.showRows(answer.data);
    table.showSort(order.replace(/^-/, ""), order.startsWith("-"));
    table.select(route.item);
    empty.hidden = answer.total > 0;
    const last = offset + answer.data.length;
    const shown = `${count(offset + 1)}–${count(last)} of ${count(answer.total)}`;
    const text = answer.total ? shown : "none";
    if (range.textContent !== text) range.textContent = text;
    previous.disabled = offset === 0;
    next.disabled = last >= answer.total;
    // The adapters of a last page may be gone.
    if (!answer.data.length && answer.total) change({ page: "" });
  }

  function openPanel() {
    if (panel?.reference === route.item) return;
    const before = panel?.reference;
    panel?.close();
    panel?.element.remove();
    panel = null;
    table.select(route.item);
    element.classList.toggle("with-panel", Boolean(route.item));
    if (!route.item) {
      if (before) table.focus(before);
      return;
    }
    const closeTo = () => {
      location.hash = routeTo("adapters", "", route.params);
    };
    panel = adapterPanel({ reference: route.item, linkTo, close: closeTo, onChange: load });
    element.append(panel.element);
    panel.focus();
  }

  function onKey(event) {
    if (event.key === "/" && !event.target.closest("input, textarea, select")) {
      event.preventDefault();
      search.focus();
    }
  }

  function update(newRoute) {
    const listChanged = newRoute.params.toString() !== route.params.toString();
    route = newRoute;
    if (document.activeElement !== search) search.value = route.params.get("query") ?? "";
    filter.value = STATES.includes(route.params.get("state")) ? route.params.get("state") : "";
    if (listChanged) load();
    openPanel();
  }

  document.addEventListener("keydown", onKey);
  update(firstRoute);
  const stop = poll(REFRESH_SECONDS, load);
  return {
    element,
    update,
    close() {
      stop();
      clearTimeout(typing);
      request?.abort();
      panel?.close();
      document.removeEventListener("keydown", onKey);
    },
  };
}
