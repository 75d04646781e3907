// Recent requests, as the telemeter io.l5d.recentRequests tells them.

import { every, here, read } from "./data.js";
import { arrange, h, say } from "./dom.js";
import { count } from "./format.js";

/** Text of a value, whatever it is. */
function text(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "object") return Object.entries(value).map(([key, one]) => `${key} ${text(one)}`).join(" · ");
  return String(value);
}

export async function show(main) {
  const note = h("div", { class: "card", hidden: true });
  const head = h("tr", {});
  const body = h("tbody", {});
  const many = h("small", {});
  const hold = h("button", { type: "button", "aria-pressed": "false", onclick: () => hold.setAttribute("aria-pressed", String(hold.getAttribute("aria-pressed") !== "true")) }, "hold still");
  const search = h("input", { type: "search", placeholder: "search", "aria-label": "search requests", "data-search": true });
  const table = h("section", { class: "card", hidden: true }, h("div", { class: "bar" }, h("h2", {}, "Recent requests ", many), h("div", { class: "tools" }, search, hold)), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), body)));
  main.replaceChildren(h("h1", {}, "Requests"), note, table);
  every(1000, async () => {
    if (hold.getAttribute("aria-pressed") === "true") return undefined;
    const answer = here("/requests.json") ? await read("/requests.json") : undefined;
    return () => {
      note.hidden = answer !== undefined;
      table.hidden = answer === undefined;
      if (!answer) {
        note.replaceChildren(
          h("h2", {}, "Not configured"),
          h("p", {}, "The last requests are kept when the configuration has this telemeter:"),
          h("pre", {}, "telemetry:\n- kind: io.l5d.recentRequests\n  sampleRate: 1.0\n  capacity: 100"),
        );
        return;
      }
      const all = Array.isArray(answer) ? answer : (answer.requests ?? []);
      const words = search.value.toLowerCase();
      const rows = all.filter((row) => !words || text(row).toLowerCase().includes(words)).slice(0, 200);
      const keys = [...new Set(all.flatMap((row) => Object.keys(row)))];
      say(many, `${count(rows.length)} of ${count(all.length)}`);
      arrange(head, keys.map((key) => h("th", { scope: "col" }, key.replaceAll("_", " "))));
      arrange(body, rows.map((row) => h("tr", {}, keys.map((key) => h("td", {}, text(row[key]))))));
    };
  });
}
