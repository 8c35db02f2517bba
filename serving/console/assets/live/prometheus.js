// Prometheus's text format, as far as the live page needs it.

const SAMPLE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\\\": "\\", '\\"': '"', "\\n": "\n" };

function number(text) {
  if (text === "+Inf" || text === "Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

function labelsOf(text) {
  const labels = {};
  for (const [, name, value] of (text ?? "").matchAll(LABEL)) {
    labels[name] = value.replace(/\\[\\"n]/g, (escape) => ESCAPES[escape]);
  }
  return labels;
}

/** Samples `{name, labels, value}` whose name is in `wanted`, a Set; comments are left out. */
export function* samples(text, wanted) {
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const name = line.slice(0, line.search(/[{\s]/));
    if (!wanted.has(name)) continue;
    const match = SAMPLE.exec(line);
    if (match) yield { name, labels: labelsOf(match[2]), value: number(match[3]) };
  }
}

/**
 * What histogram_quantile gives: linear inside a bucket, the last finite bound beyond it.
 * `buckets` maps upper bounds to cumulative counts; null when nothing was counted.
 */
export function quantile(q, buckets) {
  const bounds = [...buckets].sort(([a], [b]) => a - b);
  const total = bounds.length ? bounds[bounds.length - 1][1] : 0;
  if (!(total > 0)) return null;
  const rank = q * total;
  let [lower, below] = [0, 0];
  for (const [bound, upTo] of bounds) {
    if (upTo >= rank) {
      if (bound === Infinity) return lower;
      return upTo > below ? lower + (bound - lower) * ((rank - below) / (upTo - below)) : bound;
    }
    [lower, below] = [bound, upTo];
  }
  return lower;
}
