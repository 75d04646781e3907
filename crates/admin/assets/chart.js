// The drawing of time series: lines over time in one small SVG, with a scale, a cursor and a legend that holds the numbers.
// It knows nothing of what it draws. Lines differ by colour, by dash and by their place in the legend.

import { arrange, h, s, say, set, whenSeen } from "./dom.js";
import { clock, NONE, withUnit } from "./format.js";

const HEIGHT = 132;
const LEFT = 54;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

/** Round numbers from 0 to at least `top`, about three of them. */
export function ticks(top) {
  if (!(top > 0)) return [0, 1];
  const rough = top / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const all = [];
  for (let n = 0; all.length === 0 || all.at(-1) < top * 0.999; n += 1) all.push(Number((n * step).toPrecision(12)));
  return all;
}

/** The path of a line: a gap where there is no value, a dot where a value stands alone. */
function path(values, x, y) {
  let text = "";
  let open = false;
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    if (value === null || value === undefined) {
      open = false;
      continue;
    }
    const at = `${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    const alone = !open && (values[i + 1] === null || values[i + 1] === undefined);
    text += open ? `L${at}` : alone ? `M${at}h.1` : `M${at}`;
    open = true;
  }
  return text;
}

export class Chart {
  /**
   * `lines` is a list of `{ name, colour, area }`: colour a number from 1 to 6, area whether it is filled.
   * `extra` is put beneath the picture.
   */
  constructor({ title, unit, lines, extra }) {
    this.unit = unit;
    this.lines = lines.map((line) => {
      const value = h("b", {}, NONE);
      const swatch = s("svg", { class: `swatch c${line.colour}`, viewBox: "0 0 18 8", "aria-hidden": "true" }, s("path", { d: "M0 4H18" }));
      return {
        ...line,
        value,
        item: h("li", {}, swatch, line.name + " ", value),
        stroke: s("path", { class: `line c${line.colour}` }),
        fill: line.area ? s("path", { class: `area c${line.colour}` }) : undefined,
      };
    });
    this.grid = s("g", { class: "grid" });
    this.cursorLine = s("line", { class: "cursor", visibility: "hidden" });
    this.areas = s("g", {}, this.lines.map((line) => line.fill));
    this.strokes = s("g", {}, this.lines.map((line) => line.stroke));
    this.picture = s("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": title }, this.grid, this.areas, this.strokes, this.cursorLine);
    this.when = h("span", { class: "when" });
    this.empty = h("p", { class: "empty", hidden: true });
    this.element = h(
      "figure",
      { class: "chart card", tabindex: "0" },
      h("figcaption", {}, h("h3", {}, title), this.when),
      h("ul", { class: "legend" }, this.lines.map((line) => line.item)),
      h("div", { class: "frame" }, this.picture, this.empty),
      extra,
    );
    this.element.addEventListener("pointermove", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => this.move(undefined));
    this.element.addEventListener("blur", () => this.move(undefined));
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.seen = false;
    whenSeen(this.element, (seen) => {
      this.seen = seen;
      if (seen) this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  /** What to draw: `{ from, step, span, now, values: [[...], ...] }`, a list of values for each line; or a reason why nothing. */
  update(data, reason) {
    this.data = data;
    this.reason = reason;
    if (this.seen) this.draw();
  }

  point(event) {
    if (!this.data || event.pointerType === "touch") return;
    const box = this.picture.getBoundingClientRect();
    if (event.clientY < box.top - 20) return this.move(undefined);
    const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    return this.move(Math.round(share * (this.rows() - 1)));
  }

  key(event) {
    if (!this.data || event.target !== this.element) return;
    const rows = this.rows();
    const now = this.cursor ?? rows - 1;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - 10, PageDown: now + 10, Home: 0, End: rows - 1, Escape: undefined };
    if (!(event.key in to)) return;
    event.preventDefault();
    this.move(to[event.key]);
  }

  move(cursor) {
    this.cursor = cursor === undefined || !this.data ? undefined : Math.min(Math.max(cursor, 0), this.rows() - 1);
    this.draw();
  }

  rows() {
    return Math.round(this.data.span / this.data.step);
  }

  draw() {
    const { data } = this;
    const nothing = !data || data.values.every((values) => values.every((value) => value === null || value === undefined));
    this.empty.hidden = !nothing;
    say(this.empty, nothing ? (this.reason ?? "nothing in this time") : "");
    const width = this.picture.clientWidth;
    if (!data || width < LEFT + RIGHT + 20) {
      for (const line of this.lines) {
        say(line.value, NONE);
        line.stroke.setAttribute("d", "");
        line.fill?.setAttribute("d", "");
      }
      return;
    }
    set(this.picture, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const rows = this.rows();
    const end = data.from + (data.values[0].length - 1) * data.step;
    const first = end - (rows - 1) * data.step;
    // Values stand at the right end, where now is.
    const shift = rows - data.values[0].length;
    const x = (i) => LEFT + ((width - LEFT - RIGHT) * (i + shift)) / Math.max(1, rows - 1);
    let most = 0;
    for (const values of data.values) for (const value of values) if (value > most) most = value;
    // Shares are looked at from above: what matters is what is missing.
    const shares = this.lowest() >= 0.9 ? [0.9, 0.95, 1] : [0, 0.5, 1];
    const shown = this.unit === "ratio" ? shares : ticks(most);
    const [bottom, high] = [shown[0], shown.at(-1)];
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.max(value, bottom) - bottom) / (high - bottom));
    this.scale(width, shown, y, first, end, x, shift);
    data.values.forEach((values, i) => {
      const line = this.lines[i];
      const d = path(values, x, y);
      line.stroke.setAttribute("d", d);
      if (line.fill) {
        const solid = values.map((value) => value ?? bottom);
        line.fill.setAttribute("d", solid.length ? `M${x(0)} ${y(bottom)}` + path(solid, x, y).replace("M", "L") + `L${x(solid.length - 1)} ${y(bottom)}Z` : "");
      }
    });
    this.legend(first, shift, x);
  }

  lowest() {
    let low = 1;
    for (const values of this.data.values) for (const value of values) if (value !== null && value < low) low = value;
    return low;
  }

  scale(width, shown, y, first, end, x, shift) {
    const key = [width, shown.join(), Math.floor(end / 5), this.data.span].join("|");
    if (this.scaled === key) return;
    this.scaled = key;
    const parts = shown.map((value) => {
      const at = y(value);
      return [
        s("line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at }),
        s("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, this.label(value)),
      ];
    });
    const [step, seconds] = this.data.span <= 300 ? [60, false] : [900, false];
    for (let second = Math.ceil(first / step) * step; second <= end; second += step) {
      const at = x((second - first) / this.data.step - shift);
      if (at < LEFT + 14 || at > width - 22) continue;
      parts.push([
        s("line", { class: "tick", x1: at, x2: at, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }),
        s("text", { x: at, y: HEIGHT - 4, "text-anchor": "middle" }, clock(second, seconds)),
      ]);
    }
    arrange(this.grid, parts.flat());
  }

  label(value) {
    return value === 0 ? "0" : withUnit(value, this.unit).replace("\u202f/s", "").replace("/s", "");
  }

  legend(first, shift, x) {
    const { data, cursor } = this;
    const rows = this.rows();
    const at = cursor === undefined ? undefined : cursor - shift;
    data.values.forEach((values, i) => {
      const value = at === undefined ? latest(values, data.step) : values[at];
      say(this.lines[i].value, withUnit(value, this.unit));
    });
    if (cursor === undefined) {
      set(this.cursorLine, "visibility", "hidden");
      say(this.when, `last ${data.span <= 300 ? data.span / 60 + " min" : data.span / 3600 + " h"}`);
      return;
    }
    const px = x(Math.min(cursor, rows - 1) - shift);
    for (const [name, value] of [["x1", px], ["x2", px], ["y1", TOP], ["y2", HEIGHT - BOTTOM]]) set(this.cursorLine, name, value);
    set(this.cursorLine, "visibility", "visible");
    say(this.when, clock(first + cursor * data.step));
  }
}

/** The last value, if it is not older than some seconds. */
function latest(values, step) {
  for (let back = 1; back <= Math.max(1, 10 / step) && back <= values.length; back += 1) {
    const value = values[values.length - back];
    if (value !== null && value !== undefined) return value;
  }
  return undefined;
}

/** A small line of requests, and of failures, with no scale. */
export class Spark {
  constructor() {
    this.all = s("path", { class: "line c1" });
    this.bad = s("path", { class: "line c2 solid" });
    this.element = s("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", role: "img", "aria-label": "requests and failures in the last five minutes" }, this.all, this.bad);
  }

  update(spark) {
    const key = spark ? spark.requests.join() + "|" + spark.failures.join() : "";
    if (key === this.key) return;
    this.key = key;
    const most = spark ? Math.max(1, ...spark.requests.map((n) => n ?? 0)) : 1;
    const x = (i) => (i * 120) / Math.max(1, (spark?.requests.length ?? 1) - 1);
    const y = (value) => 22 - (value / most) * 20;
    this.all.setAttribute("d", spark ? path(spark.requests, x, y) : "");
    const failures = spark ? spark.failures.map((n) => (n ? n : null)) : [];
    this.bad.setAttribute("d", path(failures, x, y));
  }
}

/** A small line of any values that were seen while the page was open. */
export class Trail {
  constructor() {
    this.values = [];
    this.line = s("path", { class: "line c1" });
    this.element = s("svg", { class: "spark", viewBox: "0 0 120 24", preserveAspectRatio: "none", "aria-hidden": "true" }, this.line);
  }

  add(value) {
    this.values.push(value);
    if (this.values.length > 60) this.values.shift();
    const known = this.values.filter((v) => typeof v === "number");
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const x = (i) => (i * 120) / Math.max(1, this.values.length - 1);
    const y = (v) => 22 - (high > low ? (v - low) / (high - low) : 0.5) * 20;
    this.line.setAttribute("d", known.length ? path(this.values, x, y) : "");
  }
}
