// The first page: what fails, since when, where and why; then each router; then what needs attention.

import { Charts } from "./charts.js";
import { every, query, read, Series } from "./data.js";
import { arrange, h, say, set, whenSeen } from "./dom.js";
import { clock, count, memory, ms, percent, rate, span } from "./format.js";
import { address, Chip, condition, List, success } from "./list.js";
import { cause, causes, Spans } from "./parts.js";

/** Troubles that are told in full. */
const TOLD = 3;

class Verdict {
  constructor() {
    this.sign = h("span", { class: "sign", "aria-hidden": "true" });
    this.text = h("h1", {});
    this.sub = h("p", {});
    this.items = h("ul", {});
    this.element = h("section", { class: "verdict", role: "status", "aria-live": "off" }, h("div", { class: "head" }, this.sign, h("div", {}, this.text, this.sub)), this.items);
    this.known = new Map();
  }

  async read() {
    const [services, clients] = await Promise.all(
      ["service", "client"].map((kind) => read("/admin/scopes.json" + query({ kind, limit: 20 }))),
    );
    const now = services.now;
    const bad = (row) => condition(row, now).level === "bad";
    const troubles = services.rows.filter(bad);
    // A client is told of by the services that fail because of it; by itself when there are none.
    const shown = troubles.length ? troubles : clients.rows.filter(bad);
    const details = await Promise.all(shown.slice(0, TOLD).map((row) => this.detail(row)));
    return () => this.draw({ now, services, clients, shown, details, troubles: troubles.length });
  }

  async detail(row) {
    const [metrics, pairs] = await Promise.all([
      read("/admin/scope.json" + query({ scope: row.scope })),
      row.kind === "service" ? read("/admin/scopes.json" + query({ kind: "pair", router: row.router, service: row.name, limit: 10 })) : { rows: [] },
    ]);
    const where = pairs.rows.filter((pair) => pair.bad_10s > 0);
    const before = this.known.get(row.scope);
    const all = causes(metrics);
    const fresh = before ? all.map((one) => ({ ...one, count: one.count - (before.get(one.name) ?? 0) })).filter((one) => one.count > 0) : [];
    this.known.set(row.scope, this.age(before, all));
    const why = (fresh.length ? fresh : all).sort((a, b) => b.count - a.count)[0];
    return { row, why: why && { ...why, status: await this.status(row, why, where[0], metrics) }, where };
  }

  /** The status that an upstream's failed answers have most of; only its client knows. */
  async status(row, why, pair, metrics) {
    if (!why.name.includes("ResponseClassification")) return undefined;
    if (pair) metrics = await read("/admin/scope.json" + query({ scope: `rt/${pair.router}/client/${pair.client}` }));
    const found = Object.entries(metrics).filter(([name]) => /^status\/[45]\d\d$/.test(name) && !name.startsWith("status/404"));
    return found.sort(([, a], [, b]) => b - a).map(([name]) => name.slice(7)).find((status) => status.startsWith("5")) ?? found[0]?.[0].slice(7);
  }

  /** Counts as they were some ten seconds ago. */
  age(before, all) {
    if (before && Date.now() - before.at < 10000) return before;
    const now = new Map(all.map((one) => [one.name, one.count]));
    now.at = Date.now();
    return now;
  }

  draw({ now, services, clients, shown, details, troubles }) {
    const failing = Math.max(services.failing, shown.length);
    const busy = services.rows.some((row) => row.requests_10s > 0) || clients.rows.some((row) => row.requests_10s > 0);
    // What retries make good reaches no caller: that is worth a look, and no more.
    const covered = shown.length > 0 && troubles === 0 && services.rows.every((row) => !row.failing_since);
    const level = covered ? "warn" : shown.length ? "bad" : services.rows.concat(clients.rows).some((row) => condition(row, now).level === "warn") ? "warn" : busy ? "ok" : "idle";
    set(this.element, "class", `verdict ${level}`);
    say(this.sign, { bad: "▲", warn: "△", ok: "●", idle: "○" }[level]);
    if (covered) {
      say(this.text, `${count(shown.length)} of ${count(clients.total)} clients ${shown.length === 1 ? "is" : "are"} failing, and no caller notices`);
    } else if (shown.length) {
      const what = shown[0].kind === "service" ? ["service", services.total] : ["client", clients.total];
      const known = shown[0].kind === "service" ? failing : shown.length;
      const words = shown.some((row) => row.failing) ? (known === 1 ? "is failing" : "are failing") : known === 1 ? "gets no answers" : "get no answers";
      say(this.text, `${count(known)} of ${count(what[1])} ${what[0]}${what[1] === 1 ? "" : "s"} ${words}`);
    } else {
      say(this.text, { warn: "Working, with something to look at", ok: "All is well", idle: "No traffic" }[level]);
    }
    const rest = { bad: "", warn: covered ? "retries make up for it: every service succeeds" : "no service fails right now", ok: `${count(services.total)} services at ${count(clients.total)} clients, none of them failing`, idle: "no request in the last ten seconds" };
    say(this.sub, rest[level]);
    this.sub.hidden = rest[level] === "";
    arrange(
      this.items,
      details.map(({ row, why, where }) => {
        const { word, since } = condition(row, now);
        const share = success(row);
        return h(
          "li",
          {},
          h("p", {}, h("a", { href: address(row) }, h("strong", {}, row.name)), ` ${word}`, since ? ` since ${clock(since)} (${span(now - since)})` : "", share === undefined ? "" : ` · ${percent(1 - share)} of ${rate(row.requests_10s / row.seconds)} fail`),
          why ? h("p", { class: "why" }, "why: ", cause(why.name, why.status)) : undefined,
          where.length ? h("p", { class: "where" }, "where: ", where.slice(0, 3).map((pair, i) => [i ? ", " : "", h("a", { href: address({ ...pair, kind: "client", name: pair.client }) }, pair.client)]), where.length > 3 ? ` and ${where.length - 3} more` : "") : undefined,
        );
      }).concat(shown.length > TOLD ? [h("li", {}, h("a", { href: "#services" }, `and ${shown.length === 20 ? "many" : shown.length - TOLD} more`))] : []),
    );
  }
}

const NUMBERS = [
  ["requests", (row) => rate(row.requests_10s / row.seconds)],
  ["success", (row) => percent(success(row))],
  ["p50", (row) => ms(row.p50)],
  ["p99", (row) => ms(row.p99)],
  ["retries", (row, before) => (before ? rate(Math.max(0, row.retries - before.retries) / 10) : rate(0))],
  ["in flight", (row) => count(row.pending)],
  ["connections", (row) => count(row.connections)],
];

class Router {
  constructor(row, table, spans) {
    this.scope = row.scope;
    this.chip = new Chip();
    this.numbers = NUMBERS.map(([name]) => ({ name, value: h("dd", {}) }));
    this.all = h("small", {});
    this.charts = new Charts(table, row, ["rate", "success", "latency", "retries"]);
    this.servers = h("p", { class: "servers" });
    this.element = h(
      "section",
      { class: "card router", "data-router": row.name },
      h("div", { class: "bar" }, h("h2", {}, "Router ", h("span", { class: "name" }, row.name)), this.chip.element, this.all),
      h("dl", { class: "numbers" }, this.numbers.map(({ name, value }) => h("div", { "data-number": name }, h("dt", {}, name), value))),
      this.charts.element,
      this.servers,
    );
    this.past = [];
    this.spans = spans;
    whenSeen(this.element, (seen) => {
      this.seen = seen;
    });
  }

  async read() {
    if (!this.seen) return;
    if (!this.series || this.series.span !== this.spans.value) this.series = new Series([this.scope], this.spans.value);
    await this.series.read();
  }

  update(row, now, servers) {
    this.past = this.past.filter((old) => now - old.now <= 10);
    this.past.push({ now, retries: row.retries });
    this.chip.update(row, now);
    NUMBERS.forEach(([, of], i) => say(this.numbers[i].value, of(row, this.past[0])));
    say(this.all, `${count(row.requests)} requests since the start`);
    set(this.all, "data-requests", row.requests);
    if (this.seen && this.series) this.charts.update(this.series.of(this.scope));
    const key = servers.map((server) => server.name).join();
    if (key !== this.listed) {
      this.listed = key;
      arrange(this.servers, ["servers: ", ...servers.flatMap((server, i) => [i ? ", " : "", h("a", { href: address(server) }, server.name)])].map((part) => (typeof part === "string" ? document.createTextNode(part) : part)));
    }
  }
}

export async function show(main) {
  const table = await read(new URL("./queries.json", import.meta.url));
  const verdict = new Verdict();
  const routers = new Map();
  const box = h("div", {});
  const spans = new Spans(() => go());
  const kept = h("p", { class: "small" });
  const services = new List({ id: "services", title: "Services", filter: { kind: "service" }, columns: ["rate", "success", "p50", "p99", "pending", "retries"] });
  const clients = new List({ id: "clients", title: "Clients", filter: { kind: "client" }, columns: ["rate", "success", "p50", "p99", "pending", "endpoints", "connections"] });
  main.replaceChildren(verdict.element, h("div", { class: "bar" }, h("span", {}), spans.element), box, services.element, clients.element, kept);

  const go = every(1000, async () => {
    const [answer, servers, ...draws] = await Promise.all([
      read("/admin/scopes.json" + query({ kind: "router", limit: 50, sort: "attention" })),
      read("/admin/scopes.json" + query({ kind: "server", limit: 200, sort: "name" })),
      verdict.read(),
      services.read(),
      clients.read(),
    ]);
    for (const row of answer.rows) if (!routers.has(row.scope)) routers.set(row.scope, new Router(row, table, spans));
    await Promise.all([...routers.values()].map((router) => router.read()));
    return () => {
      // Routers keep their places: a list that jumps can't be read.
      const shown = [...routers.keys()].sort();
      const rows = new Map(answer.rows.map((row) => [row.scope, row]));
      arrange(box, shown.map((scope) => routers.get(scope).element));
      for (const [scope, router] of routers) {
        const row = rows.get(scope);
        if (row) router.update(row, answer.now, servers.rows.filter((server) => server.router === row.name));
      }
      for (const draw of draws) draw?.();
      set(document.body, "data-now", answer.now);
    };
  });
  services.soon = go;
  clients.soon = go;

  every(10000, async () => {
    const about = await read("/admin/history.json");
    return () =>
      say(
        kept,
        `History: each second of the last ${span(about.steps[0].span)}, each ten seconds of the last ${span(about.steps[1].span)}, of ${count(about.scopes.kept)} scopes in ${memory(about.memory.used)} of ${memory(about.memory.limit)}` +
          (about.scopes.left_out ? `; ${count(about.scopes.left_out)} with less traffic are left out for want of memory (admin.history.memoryMB).` : "."),
      );
  });
}
