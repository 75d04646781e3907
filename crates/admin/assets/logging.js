// The levels of the log, to be looked at and changed.

import { read } from "./data.js";
import { h, say, set } from "./dom.js";

const LEVELS = ["ALL", "TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL", "OFF"];

export async function show(main) {
  const said = h("p", { role: "status", class: "note", hidden: true });
  const body = h("tbody", {});
  const draw = async () => {
    const loggers = await read("/logging.json");
    body.replaceChildren(
      ...loggers.map(({ logger, level }) => {
        const known = LEVELS.includes(level) ? LEVELS : [level, ...LEVELS];
        const choose = h("select", { "aria-label": `level of ${logger}`, onchange: () => change(logger, choose.value) }, known.map((name) => h("option", { value: name, selected: name === level }, name)));
        return h("tr", {}, h("th", { scope: "row" }, logger), h("td", {}, choose));
      }),
    );
  };
  const change = async (logger, level) => {
    let text;
    let bad = true;
    try {
      const answer = await fetch("/logging.json", { method: "POST", body: new URLSearchParams({ logger, level }), credentials: "same-origin", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) {
        text = answer.status === 404 ? "not allowed here: admin.security.controlEnabled is false" : `not changed: the proxy answered ${answer.status}`;
      } else {
        await draw();
        const now = (await read("/logging.json")).find((one) => one.logger === logger)?.level;
        bad = now !== level;
        text = bad ? `${logger} is still at ${now}` : `${logger} is at ${level} now, until the process ends`;
      }
    } catch (error) {
      text = `not changed: ${error.message}`;
    }
    said.hidden = false;
    set(said, "class", bad ? "note bad" : "note");
    say(said, text);
  };
  main.replaceChildren(h("h1", {}, "Logging"), said, h("section", { class: "card" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "logger"), h("th", { scope: "col" }, "level"))), body)));
  try {
    await draw();
  } catch (error) {
    said.hidden = false;
    say(said, error.status === 404 ? "Log levels are not to be had here: admin.security.controlEnabled is false." : error.message);
  }
}
