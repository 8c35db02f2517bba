// The frame around the pages: navigation, the server's state, sign-in.

import { adaptersPage } from "./adapters/page.js";
import { admin } from "./core/api.js";
import { h, poll } from "./core/dom.js";
import { count, duration } from "./core/format.js";
import { parseRoute } from "./core/route.js";
import { currentRole, isAdmin, key, session, signInReason, signOut } from "./core/session.js";
import { livePage } from "./live/page.js";
import { playgroundPage } from "./playground/page.js";
import { probe, signInPage } from "./signin.js";

const STATUS_SECONDS = 10;
const PAGES = {
  adapters: { title: "Adapters", make: adaptersPage },
  live: { title: "Live", make: livePage },
  playground: { title: "Playground", make: playgroundPage },
};

const main = document.querySelector("main");
const account = document.querySelector("#account");
const server = document.querySelector("#server");
let shown = null;

function closePage() {
  shown?.page?.close?.();
  shown = null;
}

function show() {
  if (signInReason() !== null) {
    if (shown?.name === "sign-in") return;
    closePage();
    const view = signInPage();
    main.replaceChildren(view.element);
    shown = { name: "sign-in" };
    document.title = "Sign in · Propulsion";
    view.focus();
    return;
  }
  const route = parseRoute(location.hash);
  const fallback = currentRole() === "inference" ? "playground" : "adapters";
  const name = Object.hasOwn(PAGES, route.page) ? route.page : fallback;
  if (shown?.name === name && shown.role === currentRole()) {
    shown.page.update?.(route);
    return;
  }
  closePage();
  const page = PAGES[name].make(route);
  shown = { name, page, role: currentRole() };
  main.replaceChildren(page.element);
  document.title = `${PAGES[name].title} · Propulsion`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showAccount() {
  const parts = [];
  if (currentRole() === "inference" && signInReason() === null) {
    parts.push(h("span", { class: "badge note" }, "inference key: read only playground"));
  }
  if (key() && signInReason() === null) {
    parts.push(h(
      "button",
      { type: "button", class: "button quiet", onclick: signOut },
      "Sign out",
    ));
  }
  account.replaceChildren(...parts);
  document.body.classList.toggle("signed-out", signInReason() !== null);
  if (!isAdmin()) server.replaceChildren();
}

function showServer(status) {
  const { healthy, restarts } = status.engine;
  const state = healthy ? "engine healthy" : "engine down";
  const restarted = restarts ? ` · ${count(restarts)} restarts` : "";
  server.replaceChildren(
    h("span", { class: healthy ? "dot good" : "dot bad", "aria-hidden": "true" }),
    h("span", { class: "server-base" }, status.base),
    h("span", { class: "muted" }, `${state} · up ${duration(status.uptime_seconds)}${restarted}`),
  );
  server.title = `Propulsion ${status.version} · base ${status.base_fingerprint}`;
}

async function refreshServer() {
  if (!isAdmin()) return;
  try {
    showServer(await admin.status());
  } catch {
    server.replaceChildren(
      h("span", { class: "dot bad", "aria-hidden": "true" }),
      h("span", { class: "muted" }, "no answer"),
    );
  }
}

session.addEventListener("change", () => {
  showAccount();
  show();
  refreshServer();
});
addEventListener("hashchange", show);
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address says which page is shown and is not to change.
  event.preventDefault();
  main.focus();
});
try {
  await probe();
} catch {
  // Asked to sign in, or the server is away: the page below says so and tries again.
  show();
}
poll(STATUS_SECONDS, async () => {
  if (currentRole() !== "unknown" || signInReason() !== null) return refreshServer();
  // The server was away when the page opened.
  return probe().catch(() => {});
});
