// The aliases of one name: which version each means, or how its requests are split.

import { admin, isAbort, versionsOf } from "../core/api.js";
import { confirmation } from "../core/dialog.js";
import { h, messageBox } from "../core/dom.js";
import { percent } from "../core/format.js";
import { splitEditor } from "./splits.js";

const ALIAS_RULE = "An alias has letters, digits, '.', '_' and '-', the first a letter or digit.";
const ALIAS = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,127}";

export function versionSelect(versions, chosen, label) {
  // An alias may point at a version that is gone.
  const offered = versions.includes(chosen) || !chosen ? versions : [chosen, ...versions];
  const select = h(
    "select",
    { "aria-label": label },
    offered.map((version) => h("option", { value: version }, version)),
  );
  select.value = chosen ?? offered[0] ?? "";
  return select;
}

export function splitText(weights) {
  const total = Object.values(weights).reduce((sum, weight) => sum + weight, 0) || 1;
  return Object.entries(weights).map(
    ([version, weight]) => `${version} ${percent(weight / total)}`,
  ).join(", ");
}

/** `{element, load(), setVersion(version)}` */
export function aliasSection({ name, signal, changed }) {
  const message = messageBox();
  const rows = h("ul", { class: "aliases" });
  const element = h(
    "section",
    { hidden: true },
    h("h3", {}, "Aliases and traffic"),
    rows,
    message.element,
  );
  let shownVersion = null;
  let versions = [];

  async function load() {
    try {
      const [known, found] = await Promise.all([
        admin.aliases(name, { signal }),
        versionsOf(name, { signal }),
      ]);
      versions = found;
      show(known);
    } catch (error) {
      // The panel's own message tells what is wrong with the adapter.
      if (!isAbort(error) && error.status !== 404) message.show(error.message);
    }
  }

  async function apply(work, question) {
    if (question && !(await confirmation(question))) return;
    message.clear();
    try {
      await work();
    } catch (error) {
      message.show(error.message);
      return;
    }
    await load();
    await changed();
  }

  function move(alias, from, version, isSplit = false) {
    const change = `get ${version} instead of ${from}; those under way end on ${from}.`;
    const moved = `New requests for ${name}@${alias} ${change}`;
    const made = `Requests for ${name}@${alias} will get ${version}.`;
    return apply(() => admin.setAlias(name, alias, version), {
      title: `Move ${name}@${alias} to ${version}?`,
      text: (from ? moved : made) + (isSplit ? " Its split ends." : ""),
      action: `Move to ${version}`,
    });
  }

  function remove(alias) {
    return apply(() => admin.deleteAlias(name, alias), {
      title: `Delete ${name}@${alias}?`,
      text: `Requests for ${name}@${alias} will be refused from then on.`,
      action: "Delete alias",
      dangerous: true,
    });
  }

  function setSplit(alias, weights) {
    return apply(() => admin.setSplit(name, alias, weights), {
      title: `Split the requests for ${name}@${alias}?`,
      text: `They will go to ${splitText(weights)}.`,
      action: "Split requests",
    });
  }

  function deleteSplit(alias, version) {
    return apply(() => admin.deleteSplit(name, alias), {
      title: `End the split of ${name}@${alias}?`,
      text: version
        ? `All its requests will get ${version}.`
        : `${name}@${alias} will mean nothing.`,
      action: "End split",
      dangerous: true,
    });
  }

  function aliasRow(alias, version, weights) {
    const select = versionSelect(versions, version, `Version of ${alias}`);
    const moveButton = h(
      "button",
      {
        type: "button",
        class: "button",
        disabled: true,
        onclick: () => move(alias, version, select.value, Boolean(weights)),
      },
      "Move",
    );
    select.addEventListener("change", () => {
      moveButton.disabled = select.value === version;
    });
    const editor = h("div");
    const splitButton = h(
      "button",
      { type: "button", class: "button quiet", "aria-expanded": "false", onclick: toggleSplit },
      "Split…",
    );
    function toggleSplit() {
      const open = !editor.hasChildNodes();
      splitButton.setAttribute("aria-expanded", String(open));
      editor.replaceChildren();
      if (open) {
        editor.append(splitEditor({
          versions,
          weights: weights ?? (version ? { [version]: 1 } : {}),
          isNew: !weights,
          save: (wanted) => setSplit(alias, wanted),
          end: () => deleteSplit(alias, version),
        }));
        editor.querySelector("select, input")?.focus();
      }
    }
    const deleteButton = h(
      "button",
      {
        type: "button",
        class: "button quiet icon",
        "aria-label": `Delete ${alias}`,
        title: `Delete ${alias}`,
        onclick: () => remove(alias),
      },
      "✕",
    );
    return h(
      "li",
      { "data-alias": alias },
      h(
        "div",
        { class: "alias-row" },
        h("span", { class: "tag" }, `@${alias}`),
        select,
        moveButton,
        splitButton,
        version ? deleteButton : null,
      ),
      weights ? h("p", { class: "hint" }, `Split: ${splitText(weights)}`) : null,
      editor,
    );
  }

  function newRow() {
    const input = h(
      "input",
      {
        type: "text",
        placeholder: "new alias",
        "aria-label": "New alias",
        pattern: ALIAS,
        spellcheck: "false",
        autocapitalize: "none",
      },
    );
    const select = versionSelect(versions, shownVersion, "Version of the new alias");
    const submit = (event) => {
      event.preventDefault();
      const alias = input.value.trim();
      if (alias && input.checkValidity()) move(alias, null, select.value);
      else message.show(ALIAS_RULE);
    };
    return h(
      "li",
      {},
      h(
        "form",
        { class: "alias-row", onsubmit: submit, novalidate: true },
        input,
        select,
        h("button", { class: "button" }, "Add"),
      ),
    );
  }

  function show({ aliases, splits }) {
    element.hidden = false;
    const names = [...new Set([...Object.keys(aliases), ...Object.keys(splits ?? {})])].sort();
    rows.replaceChildren(
      ...names.map((alias) => aliasRow(alias, aliases[alias] ?? null, splits?.[alias] ?? null)),
      newRow(),
    );
  }

  return {
    element,
    load,
    setVersion(version) {
      shownVersion = version;
    },
  };
}
