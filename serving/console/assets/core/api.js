// Requests to the server that this page came from.

import { askForKey, key, setRole } from "./session.js";

// The console lies one folder below the server's root, also behind a proxy's prefix.
const ROOT = new URL("../", document.baseURI);
const ADMIN = "admin/v1";

/** An answer that is not a success; status 0 means that no answer came. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const isAbort = (error) => error?.name === "AbortError";

async function failure(response) {
  let message = "";
  try {
    const body = await response.json();
    message = body?.error?.message ?? (typeof body?.detail === "string" ? body.detail : "");
  } catch {
    // Not JSON: a proxy's page, or nothing.
  }
  const status = response.status;
  message ||= status >= 500 ? "The server failed; its log says why." : "The server refused this.";
  return new ApiError(status, `${message} (${status})`);
}

/**
 * Send one request; `path` is relative to the server's root.
 * Throws ApiError for anything but a success, and the AbortError of `signal`.
 */
export async function send(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  const sentKey = key();
  if (sentKey) headers.Authorization = `Bearer ${sentKey}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, ROOT), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  const error = await failure(response);
  // A late answer to a key since replaced says nothing about the new one.
  if (sentKey === key()) {
    if (response.status === 401) askForKey(
      sentKey ? error.message : "This server asks for an API key.",
    );
    if (response.status === 403 && path.startsWith(ADMIN)) setRole("inference");
  }
  throw error;
}

export async function getJson(path, options) {
  const response = await send(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(response.status, "The server's answer is not JSON.");
  }
}

const part = encodeURIComponent;
const query = (values) => new URLSearchParams(Object.entries(values).filter(
  ([, v]) => v !== "" && v !== null,
));

export const admin = {
  status: (options) => getJson(`${ADMIN}/status`, options),
  list: (values, options) => getJson(`${ADMIN}/adapters?${query(values)}`, options),
  adapter: (reference, options) => getJson(`${ADMIN}/adapters/${part(reference)}`, options),
  act: (reference, action, body = {}) =>
    getJson(`${ADMIN}/adapters/${part(reference)}/${action}`, { method: "POST", body }),
  aliases: (name, options) => getJson(`${ADMIN}/adapters/${part(name)}/aliases`, options),
  setAlias: (name, alias, version) =>
    send(
      `${ADMIN}/adapters/${part(name)}/aliases/${part(alias)}`,
      { method: "PUT", body: { version } },
    ),
  deleteAlias: (name, alias) =>
    send(`${ADMIN}/adapters/${part(name)}/aliases/${part(alias)}`, { method: "DELETE" }),
  setSplit: (name, alias, weights) =>
    send(
      `${ADMIN}/adapters/${part(name)}/splits/${part(alias)}`,
      { method: "PUT", body: { weights } },
    ),
  deleteSplit: (name, alias) =>
    send(`${ADMIN}/adapters/${part(name)}/splits/${part(alias)}`, { method: "DELETE" }),
};

const PAGE = 100;
const MAX_PAGES = 10;

/** The versions of one name that the store lists, newest first. */
export async function versionsOf(name, options) {
  const found = [];
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const { data, total } = await admin.list(
      { query: name, limit: PAGE, offset: page * PAGE },
      options,
    );
    found.push(...data.filter((info) => info.name === name).map((info) => info.version));
    if ((page + 1) * PAGE >= total) break;
  }
  const number = (version) => Number(version.slice(1));
  return found.sort((a, b) => number(b) - number(a));
}

/** What /v1/models lists: `{base, adapters}`, base null if this key may not use it. */
export async function models(options) {
  const { data } = await getJson("v1/models", options);
  const base = data.length && !data[0].parent ? data[0].id : null;
  return { base, adapters: data.filter((card) => card.parent).map((card) => card.id) };
}
