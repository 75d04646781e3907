// Requests of late, the slow and the failed ones too, as the telemeter io.l5d.recentRequests tells them.

import { every, here, query, read } from "./data.js";
import { arrange, h, say } from "./dom.js";
import { count, ms, NONE } from "./format.js";

const LISTS = [["recent", "Recent"], ["slow", "Slowest of the last hour"], ["failed", "Failed, a choice of the last hour"]];

const microseconds = (value) => (value === null || value === undefined ? NONE : value < 1000 ? `${value} µs` : ms(value / 1000));

/** The page of a service or client, whose name has no slash in front. */
function link(kind, router, name) {
  if (!name) return NONE;
  return h("a", { href: `/${kind}` + query({ router, name: name.replace(/^\//, "") }) }, name);
}

const COLUMNS = [
  ["time", (row) => (row.timestamp ?? "").replace(/^.*T|Z$/g, ""), ""],
  ["status", (row) => row.status ?? "none", "number"],
  ["service", (row) => link("service", row.router, row.logical), "name"],
  ["client", (row) => link("client", row.router, row.concrete), "name wide"],
  ["endpoint", (row) => row.destination || NONE, "wide"],
  ["total", (row) => microseconds(row.latency_us?.total), "number"],
  ["queue", (row) => microseconds(row.latency_us?.queue), "number wide"],
  ["connect", (row) => microseconds(row.latency_us?.connect), "number wide"],
  ["first byte", (row) => microseconds(row.latency_us?.first_byte), "number wide"],
  ["retries", (row) => count(row.retries), "number wide"],
  ["why it failed", (row) => row.failure ?? "", "words wide"],
  ["from", (row) => row.source ?? "", "wide"],
  ["trace", (row) => row.trace ?? "", "wide"],
];

/** Text of a value, whatever it is. */
function text(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? Object.values(value).map(text).join(" ") : String(value);
}

class Table {
  constructor(title) {
    this.body = h("tbody", {});
    this.many = h("small", {});
    const heads = COLUMNS.map(([name, , kind]) => h("th", { scope: "col", class: kind.replace("name", "") }, name));
    this.element = h("section", { class: "card" }, h("h2", {}, title + " ", this.many), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads)), this.body)));
  }

  draw(all, words) {
    const rows = all.filter((row) => !words || text(row).toLowerCase().includes(words)).slice(0, 200);
    say(this.many, rows.length === all.length ? count(all.length) : `${count(rows.length)} of ${count(all.length)}`);
    const key = JSON.stringify(rows);
    if (key === this.key) return;
    this.key = key;
    arrange(this.body, rows.map((row) => h("tr", { class: row.status === null || row.status >= 500 ? "failed" : undefined }, COLUMNS.map(([, of, kind]) => h("td", { class: kind }, of(row))))));
  }
}

export async function show(main) {
  const title = h("h1", {}, "Requests");
  if (!here("/requests.json")) {
    main.replaceChildren(
      title,
      h("section", { class: "card" }, h("h2", {}, "Not configured"), h("p", {}, "The last requests, the slowest and the failed ones are kept when the configuration has this telemeter:"), h("pre", {}, "telemetry:\n- kind: io.l5d.recentRequests\n  sampleRate: 1.0\n  capacity: 100")),
    );
    return;
  }
  const hold = h("button", { type: "button", "aria-pressed": "false", onclick: () => hold.setAttribute("aria-pressed", String(hold.getAttribute("aria-pressed") !== "true")) }, "hold still");
  const search = h("input", { type: "search", placeholder: "search", "aria-label": "search requests", "data-search": true, oninput: () => go() });
  const tables = LISTS.map(([key, name]) => [key, new Table(name)]);
  main.replaceChildren(h("div", { class: "bar" }, title, h("div", { class: "tools" }, search, hold)), ...tables.map(([, table]) => table.element));
  let answer;
  const go = every(1000, async () => {
    if (!answer || hold.getAttribute("aria-pressed") !== "true") answer = await read("/requests.json");
    return () => {
      for (const [key, table] of tables) table.draw(answer[key] ?? [], search.value.toLowerCase());
    };
  });
}
