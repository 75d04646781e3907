// The page of one service, client or server.

import { Charts } from "./charts.js";
import { every, query, read, Series } from "./data.js";
import { arrange, h, say, set } from "./dom.js";
import { count, ms, NONE, percent, rate, short, span } from "./format.js";
import { address, Chip, List, success } from "./list.js";
import { cause, causes, Spans } from "./parts.js";

const PATH = { service: "service", client: "client", server: "server" };

const NUMBERS = [
  ["requests", (row) => rate(row.requests_10s / row.seconds)],
  ["success", (row) => percent(success(row))],
  ["p50", (row) => ms(row.p50)],
  ["p99", (row) => ms(row.p99)],
  ["max", (row) => ms(row.max)],
  ["in flight", (row) => count(row.pending)],
];

const MORE = {
  service: [["retries", (row) => count(row.retries)]],
  client: [["requeues", (row) => count(row.retries)], ["endpoints", (row) => (row.endpoints === undefined ? NONE : `${row.available} of ${row.endpoints}`)], ["connections", (row) => count(row.connections)]],
  server: [["connections", (row) => count(row.connections)]],
};

const ALL = [
  ["requests, all", (row) => count(row.requests)],
  ["failures, all", (row) => count(row.failures)],
];

/** A small table whose rows are made anew. */
class Table {
  constructor(title, heads, none, note) {
    this.body = h("tbody", {});
    this.none = h("p", { class: "empty" }, none);
    this.table = h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: i && head.number !== false ? "number" : undefined }, head.name ?? head)))), this.body));
    this.element = h("section", { class: "card" }, h("h2", {}, title), note ? h("p", { class: "small" }, note) : undefined, this.table, this.none);
  }

  draw(rows) {
    this.none.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
    const key = JSON.stringify(rows);
    if (key === this.key) return;
    this.key = key;
    arrange(
      this.body,
      rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", { class: cell?.text === undefined ? "number" : "words" }, cell?.text ?? cell)))),
    );
  }
}

/** How counters grew in the last ten seconds or so that the page was open. */
class Growth {
  constructor() {
    this.past = [];
  }

  add(counts) {
    const now = performance.now();
    this.past.push({ now, counts });
    while (this.past.length > 2 && now - this.past[1].now > 10000) this.past.shift();
  }

  of(name, value) {
    const [first] = this.past;
    const seconds = (performance.now() - first.now) / 1000;
    return seconds < 0.5 ? undefined : Math.max(0, value - (first.counts.get(name) ?? 0)) / seconds;
  }
}

class Endpoints {
  constructor() {
    this.body = h("tbody", {});
    this.state = h("small", {});
    this.none = h("p", { class: "empty", hidden: true }, "none: discovery knows no address");
    this.element = h(
      "section",
      { class: "card", id: "endpoints" },
      h("h2", {}, "Endpoints ", this.state),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["address", "state", "requests now", "load", "idle connections", "waiting", "weight"].map((name, i) => h("th", { scope: "col", class: i > 1 ? (i > 4 ? "number wide" : "number") : undefined }, name)))), this.body)),
      this.none,
    );
  }

  draw(client) {
    say(this.state, client ? `${client.state}, balanced by ${client.balancer.replaceAll("_", " ")}` : "");
    const words = { live: ["●", "live", "ok"], dead: ["▲", "dead", "bad"], probing: ["△", "probing", "warn"], unused: ["○", "not used yet", "idle"], "fast-failed": ["▲", "refused a connection", "bad"] };
    const endpoints = client?.endpoints ?? [];
    this.none.hidden = !client || endpoints.length > 0;
    arrange(
      this.body,
      endpoints.slice(0, 500).map((endpoint) => {
        const [sign, word, level] = words[endpoint.state];
        const since = endpoint.dead_for_ms === null ? "" : ` for ${span(endpoint.dead_for_ms / 1000)}`;
        const probe = endpoint.probe_in_ms === null ? "" : `, tried again in ${span(endpoint.probe_in_ms / 1000)}`;
        return h(
          "tr",
          {},
          h("th", { scope: "row" }, endpoint.address, endpoint.leaving ? " (leaving)" : ""),
          h("td", {}, h("span", { class: `chip ${level}` }, `${sign} ${word}${since}${probe}`), endpoint.last_error && level !== "ok" ? h("small", {}, " " + endpoint.last_error) : undefined),
          h("td", { class: "number" }, count(endpoint.in_use)),
          h("td", { class: "number" }, short(endpoint.load)),
          h("td", { class: "number" }, count(endpoint.idle)),
          h("td", { class: "number wide" }, count(endpoint.waiting)),
          h("td", { class: "number wide" }, short(endpoint.weight)),
        );
      }),
    );
  }
}

export async function show(main, kind) {
  const given = new URLSearchParams(location.search);
  const name = given.get("name") ?? "";
  const router = given.get("router") ?? "";
  const scope = { kind, router, name };
  const path = `rt/${router}/${PATH[kind]}/${name}`;
  document.title = `${name} · l5d`;

  const table = await read(new URL("./queries.json", import.meta.url));
  const chip = new Chip();
  const numbers = [...NUMBERS, ...MORE[kind], ...ALL];
  const values = numbers.map(([title]) => ({ title, value: h("dd", {}) }));
  const gone = h("p", { class: "note", hidden: true }, `There is no ${kind} of this name now. It had no request yet, or it was idle for so long that it expired.`);
  const charts = new Charts(table, scope);
  const failures = new Table("Failures by cause", ["cause", "now", "since the start", { name: "what it means", number: false }], "none", kind === "server" ? "A server counts what its callers are told. Why it failed is told by the services." : undefined);
  const status = kind === "service" ? undefined : new Table("Responses by status", ["status", "now", "since the start"], "none yet");
  const endpoints = kind === "client" ? new Endpoints() : undefined;
  const columns = ["rate", "success", "p50", "p99", "pending", "requests"];
  let pairs;
  if (kind === "service") {
    pairs = new List({ id: "clients", title: "Clients that its traffic goes to", filter: { kind: "pair", router, service: name }, columns, share: true, named: (row) => [row.client, address({ ...row, kind: "client", name: row.client })] });
  } else if (kind === "client") {
    pairs = new List({ id: "services", title: "Services whose traffic comes here", filter: { kind: "pair", router, client: name }, columns, share: true });
  }
  const spans = new Spans(() => go());
  const note = kind === "service" ? h("p", { class: "small" }, "A service has no statuses of its own: those are told by its clients, for each attempt.") : undefined;
  const raw = h("p", { class: "small" }, h("a", { href: "/admin/metrics" + query({ q: path }) }, "every metric of it"), " · ", h("a", { href: "/admin/scope.json" + query({ scope: path }) }, "as JSON"), " · ", h("a", { href: "/admin/history.json" + query({ scope: path }) }, "its history"), kind === "service" ? [" · ", h("a", { href: "/delegator" + query({ router, path: "/" + name }) }, "where the name leads")] : undefined);
  main.replaceChildren(
    h("p", { class: "crumbs" }, h("a", { href: "/" }, "Overview"), " › ", `router ${router}`, " › ", kind),
    h("div", { class: "bar" }, h("h1", { class: "name" }, name), chip.element, spans.element),
    gone,
    h("dl", { class: "numbers" }, values.map(({ title, value }) => h("div", { "data-number": title }, h("dt", {}, title), value))),
    charts.element,
    ...[endpoints?.element, pairs?.element, h("div", { class: "two" }, failures.element, status?.element), note, raw].filter(Boolean),
  );

  let series;
  const growth = new Growth();
  const go = every(1000, async () => {
    if (!series || series.span !== spans.value) series = new Series([path], spans.value);
    const [listed, metrics, clients, draw] = await Promise.all([
      read("/admin/scopes.json" + query({ kind, router, name, limit: 1 })),
      read("/admin/scope.json" + query({ scope: path })),
      endpoints ? read("/clients.json" + query({ router, client: name })) : undefined,
      pairs?.read(),
      series.read(),
    ]);
    return () => {
      const [row] = listed.rows;
      gone.hidden = Boolean(row);
      chip.element.hidden = !row;
      if (row) {
        chip.update(row, listed.now);
        numbers.forEach(([, of], i) => say(values[i].value, of(row)));
        set(document.body, "data-requests", row.requests);
      }
      charts.update(series.of(path));
      const counts = new Map(Object.entries(metrics).filter(([, value]) => typeof value === "number"));
      growth.add(counts);
      failures.draw(
        causes(metrics).map((one) => {
          const full = (one.connecting ? "service_creation/failures/" : "failures/") + one.name;
          return [one.name.split(".").at(-1) + (one.connecting ? " (connecting)" : ""), rate(growth.of(full, one.count)), count(one.count), { text: cause(one.name).replace(/ \([^)]*\)$/, "") }];
        }),
      );
      status?.draw(
        [...counts]
          .filter(([key, value]) => /^status\/(\d+|error)$/.test(key) && value > 0)
          .map(([key, value]) => [key.slice(7) === "error" ? "no response" : key.slice(7), rate(growth.of(key, value)), count(value)])
          .sort(([a], [b]) => a.localeCompare(b)),
      );
      endpoints?.draw(clients[0]);
      draw?.();
      set(document.body, "data-now", listed.now);
    };
  });
  if (pairs) pairs.soon = go;
}
