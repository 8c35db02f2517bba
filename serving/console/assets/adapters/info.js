// AdapterInfo as the admin API gives it, read for display.

export const STATES = ["slot", "host", "loading", "failed", "stored"];

const MEANINGS = {
  slot: "in a slot, ready to run",
  host: "in host memory",
  loading: "being loaded",
  failed: "could not be loaded",
  stored: "in the store only",
};

export const stateMeaning = (state) => MEANINGS[state] ?? state;

/** The aliases that point at this version. */
export function aliasesOf(info) {
  const aliases = info.aliases ?? [];
  if (Array.isArray(aliases)) return aliases;
  return Object.keys(aliases).filter((alias) => aliases[alias] === info.version);
}

/** What share of an alias's requests this version gets, as `[alias, fraction]`. */
export function sharesOf(info) {
  const shares = [];
  for (const [alias, weights] of Object.entries(info.splits ?? {})) {
    if (typeof weights === "number") {
      shares.push([alias, weights]);
      continue;
    }
    const total = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
    if (weights[info.version] && total) shares.push([alias, weights[info.version] / total]);
  }
  return shares;
}
