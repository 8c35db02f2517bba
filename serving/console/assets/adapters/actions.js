// Load, unload, pin and unpin of one adapter.

import { admin } from "../core/api.js";
import { confirmation } from "../core/dialog.js";
import { h, messageBox } from "../core/dom.js";

const CONFLICT = 409;

/** `{element, message, show(info), hide()}`; `changed` is called after every action. */
export function actionBar({ reference, changed }) {
  const message = messageBox();
  const element = h(
    "div",
    { class: "actions", role: "group", "aria-label": "Actions", hidden: true },
  );
  const buttons = {
    load: button("Load", () => act("load", { pin: false })),
    unload: button("Unload", unload),
    pin: button("Pin", () => act("pin")),
    unpin: button("Unpin", () => act("unpin")),
  };
  element.append(...Object.values(buttons));
  let info = null;
  let busy = false;

  function button(title, work) {
    return h("button", { type: "button", class: "button", onclick: work }, title);
  }

  function refresh() {
    const loaded = info.state === "slot" || info.state === "host";
    const enabled = {
      load: !loaded && info.state !== "loading",
      unload: loaded,
      pin: !info.pinned,
      unpin: info.pinned,
    };
    buttons.load.hidden = loaded;
    buttons.unload.hidden = !loaded;
    buttons.pin.hidden = info.pinned;
    buttons.unpin.hidden = !info.pinned;
    for (const [name, control] of Object.entries(buttons)) {
      control.disabled = busy || !enabled[name];
    }
  }

  async function act(action, body) {
    busy = true;
    refresh();
    message.clear();
    try {
      info = { ...info, ...(await admin.act(reference, action, body)) };
      return true;
    } catch (error) {
      message.show(error.message);
      const canWait = action === "unload" && error.status === CONFLICT && !body?.force;
      return canWait ? await unloadWhenIdle(error) : false;
    } finally {
      busy = false;
      refresh();
      await changed();
    }
  }

  async function unload() {
    const pinned = info.pinned ? " It is pinned: someone wants it to stay." : "";
    const active = info.active_requests ? ` ${info.active_requests} requests run with it now.` : "";
    const agreed = await confirmation({
      title: `Unload ${reference}?`,
      text: `The next request for it has to load it again.${pinned}${active}`,
      action: "Unload",
      dangerous: true,
    });
    if (agreed) await act("unload");
  }

  async function unloadWhenIdle(error) {
    const agreed = await confirmation({
      title: `Unload ${reference} all the same?`,
      text: `${error.message} It would go as soon as its requests have ended.`,
      action: "Unload when idle",
      dangerous: true,
    });
    return agreed ? act("unload", { force: true }) : false;
  }

  return {
    element,
    message: message.element,
    show(newInfo) {
      element.hidden = false;
      info = newInfo;
      if (!busy) refresh();
    },
    hide() {
      element.hidden = true;
    },
  };
}
