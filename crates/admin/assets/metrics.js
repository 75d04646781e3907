// Every metric by its name: value, meaning, and how it moved while the page was open.

import { Trail } from "./chart.js";
import { every, query, read } from "./data.js";
import { arrange, h, say } from "./dom.js";
import { count, NONE, short } from "./format.js";

const SIZE = 100;

function shown(value) {
  if (value === null) return NONE;
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : short(value);
  if (value.count === undefined) return "no whole window yet";
  return value.count === 0 ? "count 0" : `count ${count(value.count)} · p50 ${count(value.p50)} · p99 ${count(value.p99)} · max ${count(value.max)}`;
}

export async function show(main) {
  const given = new URLSearchParams(location.search);
  const search = h("input", { type: "search", placeholder: "words of the name, such as: retries budget", "aria-label": "search metrics", value: given.get("q") ?? "", spellcheck: "false", "data-search": true });
  const found = h("small", { role: "status" });
  const body = h("tbody", {});
  const back = h("button", { type: "button", onclick: () => page(-SIZE) }, "← previous");
  const on = h("button", { type: "button", onclick: () => page(SIZE) }, "next →");
  let offset = 0;
  let matched = 0;
  const rows = new Map();
  const heads = ["name", "value", "while this page was open", "meaning"];
  main.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, "Metrics ", found), h("div", { class: "tools" }, search)),
    h("section", { class: "card" }, h("div", { class: "scroll" }, h("table", { class: "metrics" }, h("thead", {}, h("tr", {}, heads.map((name, i) => h("th", { scope: "col", class: i === 1 ? "number" : i > 1 ? "wide" : undefined }, name)))), body)), h("p", { class: "pager" }, back, on)),
    h("p", { class: "small" }, "Counters grow from the start of the process, gauges are of now, stats are of the last whole window of histogramSnapshotInterval."),
  );
  const go = every(2000, async () => {
    const answer = await read("/admin/names.json" + query({ q: search.value, offset: offset || undefined, limit: SIZE }));
    return () => {
      matched = answer.matched;
      say(found, `${count(answer.matched)} of ${count(answer.total)}`);
      const fresh = Object.entries(answer.metrics).map(([name, value]) => {
        let row = rows.get(name);
        if (!row) {
          const cell = h("td", { class: "number" });
          const trail = new Trail();
          const [family, help] = answer.meanings[name] ?? [];
          row = { cell, trail, element: h("tr", {}, h("th", { scope: "row" }, name), cell, h("td", { class: "wide" }, trail.element), h("td", { class: "wide help" }, help, family ? h("small", {}, " " + family) : undefined)) };
          rows.set(name, row);
        }
        say(row.cell, shown(value));
        row.trail.add(value === null ? null : typeof value === "number" ? value : (value.p99 ?? null));
        return row.element;
      });
      arrange(body, fresh);
      if (rows.size > 5 * SIZE) for (const name of rows.keys()) if (!(name in answer.metrics)) rows.delete(name);
      back.disabled = offset === 0;
      on.disabled = offset + SIZE >= matched;
    };
  });
  function page(by) {
    offset = Math.max(0, offset + by);
    go();
  }
  search.addEventListener("input", () => {
    offset = 0;
    history.replaceState(null, "", location.pathname + query({ q: search.value }));
    go();
  });
}
