// Who the visitor is. The key lives in this tab's sessionStorage and goes out in a header only.

const STORAGE = "propulsion.key";
let role = "unknown";
let refusal = null;

/** Fires "change" when the role or the need to sign in changes. */
export const session = new EventTarget();

const changed = () => session.dispatchEvent(new Event("change"));

export const key = () => sessionStorage.getItem(STORAGE);

/** "unknown" before the server was asked, else "admin" or "inference". */
export const currentRole = () => role;
export const isAdmin = () => role === "admin";

/** Why the server wants a key, or null. */
export const signInReason = () => refusal;

export function setRole(value) {
  if (role === value) return;
  role = value;
  changed();
}

/** The server answered 401. */
export function askForKey(message) {
  if (refusal === message) return;
  refusal = message;
  role = "unknown";
  changed();
}

export function useKey(value) {
  sessionStorage.setItem(STORAGE, value);
}

/** The key is good for something. */
export function accept(value) {
  refusal = null;
  role = value;
  changed();
}

export function signOut() {
  sessionStorage.removeItem(STORAGE);
  role = "unknown";
  refusal = "You are signed out.";
  changed();
}
