// What the pages read, and when. A page that nobody looks at reads nothing.

import { say, set } from "./dom.js";
import { span } from "./format.js";

/** Reads JSON from this origin; an error says what went wrong. */
export async function read(url, options) {
  const answer = await fetch(url, { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(10000), ...options });
  if (!answer.ok) {
    const text = (await answer.text()).slice(0, 300);
    const error = new Error(text || `${url.split("?")[0]} answered ${answer.status}`);
    error.status = answer.status;
    throw error;
  }
  return answer.json();
}

/** Whether the proxy has a page: a telemeter's is there when the telemeter is configured. */
export function here(path) {
  return document.body.dataset.has.split(" ").includes(path);
}

/** `?a=1&b=2`, without what is undefined; lists give a parameter several times. */
export function query(parameters) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") search.append(name, one);
    }
  }
  return "?" + search;
}

const state = document.getElementById("state");
let told = Date.now();
let trouble;

function tell() {
  const silent = (Date.now() - told) / 1000;
  const text = trouble && silent > 3 ? `no news for ${span(silent)}: ${trouble}` : document.hidden ? "paused" : "live";
  say(state, text);
  set(state, "class", trouble && silent > 3 ? "bad" : "good");
  set(document.documentElement, "data-stale", trouble && silent > 3);
}

/** What the last turns took, for whoever measures: milliseconds of script, and bytes. */
export const cost = { script: [], turns: 0 };

/**
 * Calls `turn` now and then every so many milliseconds, one call after the other, while the page is looked at. `turn`
 * returns a function that draws what was read, so that reading and drawing are told apart.
 */
export function every(milliseconds, turn) {
  let busy = false;
  let again = false;
  const go = async () => {
    if (busy) {
      again = true;
      return;
    }
    if (document.hidden) return;
    busy = true;
    try {
      const draw = await turn();
      told = Date.now();
      trouble = undefined;
      const began = performance.now();
      if (draw) draw();
      cost.script.push(performance.now() - began);
      if (cost.script.length > 100) cost.script.shift();
      cost.turns += 1;
    } catch (error) {
      trouble = error.name === "TimeoutError" ? "no answer within 10 s" : error.message;
      if (!(error instanceof TypeError) && !error.status && error.name !== "TimeoutError") console.error(error);
    }
    busy = false;
    tell();
    if (again) {
      again = false;
      go();
    }
  };
  setInterval(go, milliseconds);
  document.addEventListener("visibilitychange", () => {
    tell();
    go();
  });
  go();
  return go;
}

/** Series of some scopes, kept and moved on by what is new. */
export class Series {
  /** `span` in seconds: up to the history's finer one every second, else every ten. */
  constructor(scopes, span) {
    this.scopes = scopes;
    this.span = span;
    this.step = span <= 300 ? 1 : 10;
    this.last = undefined;
    this.values = new Map();
  }

  async read() {
    const since = this.last === undefined ? -this.span : this.last;
    const answer = await read("/admin/history.json" + query({ scope: this.scopes, since, step: this.step }));
    const rows = this.span / this.step;
    for (const scope of answer.scopes) {
      if (!scope.found) {
        this.values.delete(scope.scope);
        continue;
      }
      const known = this.values.get(scope.scope) ?? { from: answer.from, metrics: {} };
      known.kept = scope.kept;
      let extra = 0;
      for (const [metric, fresh] of Object.entries(scope.metrics)) {
        const all = (known.metrics[metric] ??= []);
        // What is new may begin with what is known: a step that was told is told again.
        const offset = Math.round((answer.from - known.from) / this.step);
        while (all.length < offset) all.push(null);
        all.length = Math.max(0, offset);
        all.push(...(offset < 0 ? fresh.slice(-offset) : fresh));
        extra = Math.max(extra, all.length - rows);
      }
      if (extra > 0) {
        for (const all of Object.values(known.metrics)) all.splice(0, extra);
        known.from += extra * this.step;
      }
      this.values.set(scope.scope, known);
    }
    this.last = answer.now;
    this.now = answer.now;
  }

  /** `{ from, step, metrics: { requests: [...] } }` of a scope; undefined when it isn't there. */
  of(scope) {
    const known = this.values.get(scope);
    return known && { step: this.step, span: this.span, now: this.now, ...known };
  }
}
