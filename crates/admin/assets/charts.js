// Which charts there are of a router, server, service or client, and what each draws of the history. The queries beside them
// are those of queries.json, of which /admin/grafana.json is made, too.

import { Chart } from "./chart.js";
import { h, say } from "./dom.js";

/** A count of each step, by the second. */
const perSecond = (name) => (series) => series.metrics[name].map((value) => (value === null ? null : value / series.step));
const value = (name) => (series) => series.metrics[name];

/** The share of success; nothing where nothing ended. Over ten seconds where there are seconds, or it would jump about. */
function success(series) {
  const { requests, failures } = series.metrics;
  const wide = series.step === 1 ? 10 : 1;
  let [all, bad] = [0, 0];
  return requests.map((n, i) => {
    all += n ?? 0;
    bad += failures[i] ?? 0;
    if (i >= wide) {
      all -= requests[i - wide] ?? 0;
      bad -= failures[i - wide] ?? 0;
    }
    return n === null || all === 0 ? null : Math.max(0, (all - bad) / all);
  });
}

const RATE = { lines: [{ name: "all", colour: 1, area: true, of: perSecond("requests") }, { name: "failed", colour: 2, area: true, of: perSecond("failures") }] };
const SUCCESS = { lines: [{ name: "success", colour: 3, of: success }] };
const LATENCY = {
  lines: [
    { name: "p50", colour: 1, area: true, of: value("p50") },
    { name: "p99", colour: 4, of: value("p99") },
    { name: "max", colour: 5, of: value("max") },
  ],
};
const STATUS = ["2xx", "3xx", "4xx", "5xx"].map((name, i) => ({ name, colour: [3, 6, 4, 2][i], area: name === "5xx", of: perSecond("status_" + name) }));
const BYTES = { lines: [{ name: "received", colour: 1, of: perSecond("received_bytes") }, { name: "sent", colour: 4, of: perSecond("sent_bytes") }] };
const one = (name, of) => ({ lines: [{ name, colour: 1, area: true, of }] });

const DRAWN = {
  router: { rate: RATE, success: SUCCESS, latency: LATENCY, retries: one("retries and requeues", perSecond("retries")), pending: one("requests", value("pending")), connections: one("open", value("connections")), bytes: BYTES },
  server: { status: { lines: STATUS }, success: SUCCESS, latency: LATENCY, pending: one("requests", value("pending")), connections: one("open", value("connections")), bytes: BYTES },
  service: { rate: RATE, success: SUCCESS, latency: LATENCY, retries: one("retries", perSecond("retries")), budget: one("left", value("budget")), pending: one("requests", value("pending")) },
  client: {
    status: { lines: [...STATUS, { name: "error", colour: 5, of: perSecond("status_error") }, { name: "no connection", colour: 1, of: perSecond("connect_failures") }] },
    success: SUCCESS,
    latency: LATENCY,
    endpoints: { lines: [{ name: "known", colour: 1, of: value("endpoints") }, { name: "available", colour: 3, area: true, of: value("available") }] },
    requeues: one("requeues", perSecond("retries")),
    budget: one("left", value("budget")),
    pending: one("requests", value("pending")),
    connections: one("open", value("connections")),
    bytes: BYTES,
  },
};

/** A PromQL string. */
function quoted(text) {
  return '"' + text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n") + '"';
}

/** The labels of a scope, as a chart's queries want them. */
function labelled(text, scope) {
  return text.replace(/<(rt|router|server|service|client)>/g, (_, label) => `${label}=${quoted(["rt", "router"].includes(label) ? scope.router : scope.name)}`);
}

async function copy(text, button) {
  let done = "copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = "not allowed: select the text";
  }
  say(button, done);
  setTimeout(() => say(button, "copy"), 1500);
}

/** The queries of a chart: what to ask Prometheus for, to see the same there. */
function queries(chart, scope) {
  const faces = [["legacy", "of /admin/metrics/prometheus"], ["modern", "of /metrics"]];
  const parts = faces.map(([face, title]) => {
    const lines = chart.lines.filter((line) => line[face]);
    if (lines.length === 0) return undefined;
    return [
      h("h4", {}, title),
      lines.map((line) => {
        const text = labelled(line[face], scope);
        const button = h("button", { type: "button", class: "small", onclick: () => copy(text, button) }, "copy");
        return h("div", { class: "query" }, h("span", {}, line.name), h("code", {}, text), button);
      }),
    ];
  });
  return h("details", { class: "queries" }, h("summary", {}, "PromQL"), parts);
}

/** The charts of one scope, in one grid. */
export class Charts {
  /** `table` is queries.json; `scope` has kind, router and name. `only` leaves out charts that are not named. */
  constructor(table, scope, only) {
    this.charts = table[scope.kind]
      .filter((chart) => DRAWN[scope.kind][chart.id] && (!only || only.includes(chart.id)))
      .map((chart) => {
        const { lines } = DRAWN[scope.kind][chart.id];
        const picture = new Chart({ title: chart.title, unit: chart.unit, lines, extra: queries(chart, scope) });
        picture.element.dataset.chart = chart.id;
        return { lines, picture };
      });
    this.element = h("div", { class: "charts" }, this.charts.map((chart) => chart.picture.element));
  }

  /** Draws what `Series.of` gives. */
  update(series) {
    const reason = series && !series.kept ? "no history: what does not fit into admin.history.memoryMB is left out by traffic" : undefined;
    for (const { lines, picture } of this.charts) {
      if (!series?.kept || !series.metrics.requests) picture.update(undefined, reason ?? "nothing is kept yet");
      else picture.update({ ...series, values: lines.map((line) => line.of(series)) });
    }
  }
}
