// A line chart over the last minutes in SVG: axes, units, legend, the values under the pointer.

import { h, svg, uniqueId } from "../core/dom.js";
import { digits, NONE, timeOfDay } from "../core/format.js";
import { linear, timeTicks, valueTicks } from "./scale.js";

const HEIGHT = 200;
const MARGIN = { top: 10, right: 12, bottom: 24, left: 48 };

const isKnown = (value) => value !== null && value !== undefined;

/** Pieces of a line between nulls. */
function runs(times, values) {
  const found = [];
  let run = [];
  values.forEach((value, index) => {
    if (isKnown(value)) run.push([times[index], value]);
    else {
      if (run.length) found.push(run);
      run = [];
    }
  });
  if (run.length) found.push(run);
  return found;
}

function linePath(run, x, y) {
  // A lone point shows as a dot: round caps of a line without length.
  const tail = run.length === 1 ? "h0" : "";
  const corners = run.map(([time, value]) => `${x(time).toFixed(1)} ${y(value).toFixed(1)}`);
  return `M${corners.join("L")}${tail}`;
}

/**
 * @param unit shown beside the title and with every value
 * @returns `{element, draw({times, start, end, series}), close()}`, each of `series` being
 *   `{label, color, values, area}` with null for what is not known; `color` is 0 to 6
 */
export function lineChart({ title, unit }) {
  const titleId = uniqueId("chart");
  const plot = svg(
    "svg",
    { class: "plot", role: "img", tabindex: 0, "aria-labelledby": titleId, height: HEIGHT },
  );
  const description = svg("title", { id: uniqueId("chart") });
  const legend = h("ul", { class: "legend" });
  const tip = h("div", { class: "tip", hidden: true });
  const frame = h("div", { class: "plot-frame" }, plot, tip);
  const element = h(
    "figure",
    { class: "card chart" },
    h("figcaption", { id: titleId }, title, " ", h("span", { class: "muted" }, unit)),
    frame,
    legend,
  );
  let data = { times: [], start: 0, end: 1, series: [] };
  let width = 0;
  let hovered = null;
  let scales = null;

  const withUnit = (value) => (isKnown(value) ? `${digits(value)} ${unit}` : NONE);

  function highest() {
    return Math.max(0, ...data.series.flatMap(({ values }) => values.filter(isKnown)));
  }

  function axes(x, y, ticks) {
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const rows = ticks.map((tick) => svg(
      "g",
      { class: "tick" },
      svg("line", { x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
      svg(
        "text",
        { x: MARGIN.left - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "middle" },
        digits(tick),
      ),
    ));
    const columns = timeTicks(data.start, data.end, width / 80)
      .filter((tick) => x(tick) < right - 16 && x(tick) > MARGIN.left + 10)
      .map((tick) => svg(
        "text",
        { class: "tick", x: x(tick), y: bottom + 16, "text-anchor": "middle" },
        timeOfDay(tick).slice(0, 5),
      ));
    return [...rows, ...columns];
  }

  function lines(x, y) {
    return data.series.flatMap(({ color, values, area }) =>
      runs(data.times, values).flatMap((run) => {
        const path = linePath(run, x, y);
        const line = svg("path", { class: `line color-${color}`, d: path });
        if (!area || run.length < 2) return [line];
        const floor = `L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}L${x(run[0][0]).toFixed(1)} ${y(0)}Z`;
        return [svg("path", { class: `area color-${color}`, d: path + floor }), line];
      }),
    );
  }

  function render() {
    if (width < 80) return;
    const ticks = valueTicks(highest());
    const x = linear(data.start, data.end, MARGIN.left, width - MARGIN.right);
    const y = linear(0, ticks.at(-1), HEIGHT - MARGIN.bottom, MARGIN.top);
    scales = { x, y };
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const empty = data.times.length ? null : svg(
      "text",
      { class: "nothing", x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" },
      "waiting for values",
    );
    plot.replaceChildren(
      description,
      ...axes(x, y, ticks),
      ...lines(x, y),
      ...(empty ? [empty] : []),
      svg("g", { class: "cursor" }),
    );
    const latest = data.series.map(({ label, values }) => `${label} ${withUnit(values.at(-1))}`);
    description.textContent = `${title}: ${latest.join(", ") || "no values yet"}`;
    showLegend();
    showCursor();
  }

  function showLegend() {
    const index = hovered ?? data.times.length - 1;
    const items = data.series.map(({ label, color, values }) => h(
      "li",
      {},
      h("span", { class: `swatch color-${color}`, "aria-hidden": "true" }),
      h("span", { class: "label" }, label),
      h("span", { class: "legend-value" }, digits(values[index] ?? null)),
    ));
    legend.replaceChildren(...items);
  }

  function showCursor() {
    const cursor = plot.querySelector(".cursor");
    const time = hovered === null ? undefined : data.times[hovered];
    tip.hidden = time === undefined;
    if (!cursor || time === undefined) {
      cursor?.replaceChildren();
      return;
    }
    const at = scales.x(time);
    const known = data.series.filter(({ values }) => isKnown(values[hovered]));
    const dots = known.map(({ color, values }) =>
      svg("circle", { class: `color-${color}`, cx: at, cy: scales.y(values[hovered]), r: 3.5 }),
    );
    cursor.replaceChildren(
      svg("line", { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      ...dots,
    );
    tip.replaceChildren(
      h("strong", {}, timeOfDay(time)),
      ...data.series.map(({ label, color, values }) => h(
        "span",
        {},
        h("span", { class: `swatch color-${color}` }),
        `${label} `,
        h("b", {}, withUnit(values[hovered])),
      )),
    );
    const room = tip.offsetWidth + 14;
    const left = at + room > width ? at - room : at + 14;
    tip.style.setProperty("left", `${Math.max(0, left)}px`);
  }

  function hover(index) {
    const last = data.times.length - 1;
    hovered = index === null || last < 0 ? null : Math.min(Math.max(index, 0), last);
    showLegend();
    showCursor();
  }

  plot.addEventListener("pointermove", (event) => {
    if (!scales) return;
    const at = event.clientX - plot.getBoundingClientRect().left;
    const distances = data.times.map((time) => Math.abs(scales.x(time) - at));
    hover(distances.length ? distances.indexOf(Math.min(...distances)) : null);
  });
  plot.addEventListener("pointerleave", () => hover(null));
  plot.addEventListener("blur", () => hover(null));
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    hover((hovered ?? data.times.length - (step < 0 ? 0 : 1)) + step);
  });
  const watcher = new ResizeObserver(([entry]) => {
    width = Math.floor(entry.contentRect.width);
    render();
  });
  watcher.observe(frame);

  return {
    element,
    draw(newData) {
      // The pointer stays on its moment while the chart moves on below it.
      const time = hovered === null ? null : data.times[hovered];
      data = newData;
      if (time !== null) {
        const index = data.times.indexOf(time);
        hovered = index < 0 ? null : index;
      }
      render();
    },
    close: () => watcher.disconnect(),
  };
}
