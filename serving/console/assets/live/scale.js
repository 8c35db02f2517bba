// Axes: from values to round ticks and pixels.

/** Round steps from 0 to at least `highest`, four or five of them. */
export function valueTicks(highest) {
  const top = highest > 0 ? highest : 1;
  const rough = top / 4;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((size) => size >= rough);
  const ticks = [];
  for (let index = 0; (index - 1) * step < top; index += 1) ticks.push(Number(
    (index * step).toPrecision(12),
  ));
  return ticks;
}

/** Whole minutes between two times in milliseconds, every one or every second. */
export function timeTicks(start, end, most) {
  const minute = 60_000;
  const every = (end - start) / minute > most ? 2 * minute : minute;
  const ticks = [];
  for (let time = Math.ceil(start / every) * every; time <= end; time += every) ticks.push(time);
  return ticks;
}

/** The straight line that takes `from` to `low` and `to` to `high`. */
export function linear(from, to, low, high) {
  const slope = (high - low) / (to - from || 1);
  return (value) => low + (value - from) * slope;
}
