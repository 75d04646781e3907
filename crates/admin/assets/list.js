// A table of scopes: searched, sorted and paged by the proxy, so that only the rows on the screen are ever read and drawn.

import { Spark } from "./chart.js";
import { query, read } from "./data.js";
import { arrange, h, say, set, whenSeen } from "./dom.js";
import { clock, count, ms, NONE, percent, rate, span } from "./format.js";

/** Where the page of a scope is. */
export function address(row) {
  return `/${row.kind}` + query({ router: row.router, name: row.name });
}

/** The share of the last ten seconds that went well; undefined when nothing ended. */
export function success(row) {
  const all = Math.max(row.requests_10s, row.bad_10s);
  return all === 0 ? undefined : (all - row.bad_10s) / all;
}

/** What a scope is like, in a word, a sign and a class; and since when. */
export function condition(row, now) {
  if (row.failing) return { word: "failing", sign: "▲", level: "bad", since: row.failing_since };
  if (row.stuck_since && now - row.stuck_since >= 3) return { word: "no answers", sign: "■", level: "bad", since: row.stuck_since };
  if (row.endpoints === 0) return { word: "no endpoints", sign: "▲", level: "bad" };
  if (row.endpoints !== undefined && row.available < row.endpoints) return { word: `${row.endpoints - row.available} of ${row.endpoints} dead`, sign: "▲", level: "warn" };
  if (row.failing_since) return { word: "failed a moment ago", sign: "△", level: "warn", since: row.failing_since };
  if (row.requests_10s === 0) return { word: "idle", sign: "○", level: "idle" };
  return { word: "ok", sign: "●", level: "ok" };
}

/** A condition as an element, and how to change it. */
export class Chip {
  constructor() {
    this.sign = h("span", { "aria-hidden": "true" });
    this.word = h("span", {});
    this.since = h("small", {});
    this.element = h("span", { class: "chip" }, this.sign, " ", this.word, " ", this.since);
  }

  update(row, now) {
    const { word, sign, level, since } = condition(row, now);
    say(this.sign, sign);
    say(this.word, word);
    say(this.since, since ? `since ${clock(since)} · ${span(now - since)}` : "");
    set(this.element, "class", `chip ${level}`);
  }
}

const COLUMNS = {
  rate: { title: "requests", sort: "rate", of: (row) => rate(row.requests_10s / row.seconds), hint: "over the last 10 s" },
  success: { title: "success", sort: "failures", of: (row) => percent(success(row)), hint: "over the last 10 s" },
  p50: { title: "p50", of: (row) => ms(row.p50), wide: true, hint: "over the last 10 s" },
  p99: { title: "p99", sort: "p99", of: (row) => ms(row.p99), hint: "over the last 10 s" },
  pending: { title: "in flight", sort: "pending", of: (row) => count(row.pending), wide: true },
  retries: { title: "retries", sort: "retries", of: (row) => count(row.retries), wide: true, hint: "since the start" },
  endpoints: { title: "endpoints", of: (row) => (row.endpoints === undefined ? NONE : `${row.available} of ${row.endpoints}`), wide: true, hint: "available of known" },
  connections: { title: "connections", of: (row) => count(row.connections), wide: true },
  requests: { title: "requests, all", of: (row) => count(row.requests), wide: true, hint: "since the start" },
};

export class List {
  /**
   * `id` names the list in the address, `title` stands above it, `filter` are parameters that never change, `columns` are keys of
   * what there is, `share` whether to show each row's part of the whole; `named` says how a row is called and where it leads.
   */
  constructor({ id, title, filter, columns, share = false, size = 25, named, search = true }) {
    Object.assign(this, { id, filter, columns, share, size, named: named ?? ((row) => [row.name, address(row)]) });
    const given = new URLSearchParams(location.search);
    this.sort = given.get(id + ".sort") ?? (share ? "rate" : "attention");
    this.reverse = given.get(id + ".reverse") === "1";
    this.text = given.get(id + ".q") ?? "";
    this.offset = Number(given.get(id + ".offset") ?? 0) || 0;
    this.rows = new Map();
    this.seen = false;
    this.count = h("small", {});
    this.input = h("input", { type: "search", placeholder: "search names", "aria-label": `search ${title}`, value: this.text, spellcheck: "false", oninput: () => this.searched(), "data-search": true });
    this.attention = h("button", { type: "button", onclick: () => this.order("attention") }, "needs attention first");
    this.heads = columns.map((key) => this.head(COLUMNS[key]));
    this.named_head = h("th", { scope: "col" }, h("button", { type: "button", onclick: () => this.order("name") }, "name"));
    this.body = h("tbody", {});
    this.none = h("p", { class: "empty", hidden: true });
    this.back = h("button", { type: "button", onclick: () => this.page(-1) }, "← previous");
    this.on = h("button", { type: "button", onclick: () => this.page(1) }, "next →");
    this.where = h("span", { role: "status" });
    this.pager = h("p", { class: "pager", hidden: true }, this.back, this.where, this.on);
    this.element = h(
      "section",
      { class: "card list", id },
      h("div", { class: "bar" }, h("h2", {}, title, " ", this.count), search ? h("div", { class: "tools" }, this.input, share ? undefined : this.attention) : undefined),
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, this.named_head, h("th", { scope: "col" }, "state"), this.heads.map(({ cell }) => cell), share ? h("th", { scope: "col", class: "number" }, "share") : undefined, h("th", { scope: "col", class: "wide" }, "last 5 min"))),
          this.body,
        ),
      ),
      this.none,
      this.pager,
    );
    this.mark();
    whenSeen(this.element, (seen) => {
      this.seen = seen;
      if (seen) this.soon?.();
    });
  }

  head(column) {
    const name = column.sort ? h("button", { type: "button", onclick: () => this.order(column.sort) }, column.title) : column.title;
    return { column, cell: h("th", { scope: "col", class: column.wide ? "number wide" : "number", title: column.hint }, name) };
  }

  order(sort) {
    this.reverse = this.sort === sort && sort !== "attention" ? !this.reverse : false;
    this.sort = sort;
    this.offset = 0;
    this.changed();
  }

  searched() {
    this.text = this.input.value;
    this.offset = 0;
    this.changed();
  }

  page(direction) {
    this.offset = Math.max(0, this.offset + direction * this.size);
    this.changed();
  }

  mark() {
    const say_sort = (cell, sort) => set(cell, "aria-sort", this.sort !== sort ? undefined : (sort === "name") === this.reverse ? "descending" : sort === "name" ? "ascending" : this.reverse ? "ascending" : "descending");
    say_sort(this.named_head, "name");
    for (const { column, cell } of this.heads) if (column.sort) say_sort(cell, column.sort);
    set(this.attention, "aria-pressed", String(this.sort === "attention"));
  }

  /** The order, the search and the page are in the address: a reload finds them again. */
  changed() {
    this.mark();
    const now = new URLSearchParams(location.search);
    const plain = this.share ? "rate" : "attention";
    for (const [key, value] of [["sort", this.sort === plain ? "" : this.sort], ["reverse", this.reverse ? "1" : ""], ["q", this.text], ["offset", this.offset || ""]]) {
      if (value === "") now.delete(`${this.id}.${key}`);
      else now.set(`${this.id}.${key}`, value);
    }
    history.replaceState(null, "", location.pathname + (now.size ? "?" + now : ""));
    this.soon?.();
  }

  /** Reads the rows that are on the screen; returns what draws them, or nothing when they are not looked at. */
  async read() {
    if (!this.seen) return undefined;
    const asked = { ...this.filter, sort: this.sort, reverse: this.reverse ? 1 : undefined, q: this.text, offset: this.offset || undefined, limit: this.size, spark: 1 };
    const answer = await read("/admin/scopes.json" + query(asked));
    if (answer.matched > 0 && this.offset >= answer.matched) {
      this.offset = Math.floor((answer.matched - 1) / this.size) * this.size;
      return this.read();
    }
    return () => this.draw(answer);
  }

  draw(answer) {
    this.answer = answer;
    const { matched, total, failing } = answer;
    say(this.count, `${count(total)}${failing ? ` · ${count(failing)} failing` : ""}`);
    const whole = answer.rows.reduce((sum, row) => sum + row.requests_10s, 0);
    const rows = answer.rows.map((row) => {
      const known = this.rows.get(row.scope) ?? this.row(row);
      this.rows.set(row.scope, known);
      known.update(row, answer.now, whole);
      return known.element;
    });
    arrange(this.body, rows);
    if (this.rows.size > 4 * this.size) {
      const shown = new Set(answer.rows.map((row) => row.scope));
      for (const scope of this.rows.keys()) if (!shown.has(scope)) this.rows.delete(scope);
    }
    this.none.hidden = rows.length > 0;
    say(this.none, total === 0 ? "none yet: they come with the first request" : `none of ${count(total)} has “${this.text}” in its name`);
    this.pager.hidden = matched <= this.size;
    say(this.where, `${count(this.offset + 1)}–${count(Math.min(matched, this.offset + this.size))} of ${count(matched)}`);
    this.back.disabled = this.offset === 0;
    this.on.disabled = this.offset + this.size >= matched;
  }

  row(first) {
    const [name, href] = this.named(first);
    const chip = new Chip();
    const spark = new Spark();
    const cells = this.columns.map((key) => h("td", { class: COLUMNS[key].wide ? "number wide" : "number", "data-label": COLUMNS[key].title }));
    const part = h("td", { class: "number", "data-label": "share" });
    const element = h(
      "tr",
      { "data-scope": first.scope },
      h("th", { scope: "row" }, h("a", { href, title: name }, name)),
      h("td", { class: "state" }, chip.element),
      cells,
      this.share ? part : undefined,
      h("td", { class: "wide" }, spark.element),
    );
    return {
      element,
      update: (row, now, whole) => {
        chip.update(row, now);
        this.columns.forEach((key, i) => say(cells[i], COLUMNS[key].of(row)));
        if (this.share) say(part, whole > 0 ? percent(row.requests_10s / whole) : NONE);
        spark.update(row.spark);
      },
    };
  }
}
