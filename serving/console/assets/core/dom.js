// Elements are made here only, and text always becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter(
    (child) => child !== null && child !== undefined && child !== false,
  ));
  return element;
}

/** An HTML element; attributes that are functions (`onclick`) become listeners. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

let ids = 0;

/** An id that no other element of the page has. */
export function uniqueId(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}

/** A labelled form control: label above, control below. */
export function field(label, control, hint) {
  control.id ||= uniqueId("field");
  return h(
    "div",
    { class: "field" },
    h("label", { for: control.id }, label),
    control,
    hint ? h("p", { class: "hint" }, hint) : null,
  );
}

/** A place for an error or a notice where it belongs; empty and hidden until told something. */
export function messageBox() {
  const element = h("p", { class: "message", role: "alert", hidden: true });
  return {
    element,
    show(text, kind = "error") {
      element.dataset.kind = kind;
      element.textContent = text;
      element.hidden = false;
    },
    clear() {
      element.hidden = true;
      element.textContent = "";
    },
  };
}

/** Calls `work` now and every `seconds`, never twice at once, not while the tab is hidden. */
export function poll(seconds, work) {
  let timer = null;
  let stopped = false;
  let running = false;
  async function tick() {
    clearTimeout(timer);
    if (stopped || running) return;
    running = true;
    try {
      if (!document.hidden) await work();
    } finally {
      running = false;
      if (!stopped) timer = setTimeout(tick, seconds * 1000);
    }
  }
  const onVisible = () => {
    if (!document.hidden) tick();
  };
  document.addEventListener("visibilitychange", onVisible);
  tick();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisible);
  };
}
