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
