// Small things that several pages show.

import { h, set } from "./dom.js";

/** What Finagle's exceptions mean to somebody who is looking for a fault. */
const MEANINGS = [
  ["RichNoBrokersAvailableException", "the name leads nowhere, or to no address: look at the dtab and at the namer"],
  ["NoBrokersAvailableException", "the name leads nowhere, or to no address: look at the dtab and at the namer"],
  ["RichConnectionFailedException", "no endpoint could be connected to"],
  ["ConnectionFailedException", "no endpoint could be connected to"],
  ["DynBoundTimeoutException", "the name was not bound in time: a namer does not answer"],
  ["GlobalRequestTimeoutException", "totalTimeoutMs ran out, retries included"],
  ["IndividualRequestTimeoutException", "an attempt took longer than requestAttemptTimeoutMs"],
  ["ChannelClosedException", "the upstream closed the connection instead of answering"],
  ["CancelledRequestException", "the caller went away first"],
  ["ResponseClassificationSyntheticException", "the upstream answered, and the answer counts as a failure, such as a 5xx"],
  ["TooManyWaitersException", "more requests waited for a connection than hostConnectionPool.maxWaiters"],
  ["RoutingFactory$UnknownDst", "the request could not be named"],
  ["RejectedExecutionException", "refused: more requests at once than maxConcurrentRequests"],
  ["FailedFastException", "the endpoint failed a moment ago and was not tried"],
];

/** A cause in words. */
export function cause(name, status) {
  if (status) return `the upstream answers ${status}`;
  const last = name.split("/").at(-1);
  const found = MEANINGS.find(([ending]) => name.includes(ending));
  const short = last.split(".").at(-1);
  return found ? `${found[1]} (${short})` : short;
}

/** The failures of a scope by their first cause, from what scope.json tells: `[{ name, count }]`. */
export function causes(metrics) {
  const all = [];
  for (const [path, value] of Object.entries(metrics)) {
    const match = /^(service_creation\/)?failures\/(.+)$/.exec(path);
    // A cause's own causes are counted beneath it, and are the same failures.
    if (match && typeof value === "number" && value > 0 && !match[2].includes("/")) {
      all.push({ name: match[2], count: value, connecting: Boolean(match[1]) });
    }
  }
  return all.sort((a, b) => b.count - a.count);
}

/** The choice of how far back charts go. It is in the address. */
export class Spans {
  constructor(changed) {
    this.value = new URLSearchParams(location.search).get("span") === "3600" ? 3600 : 300;
    this.buttons = [[300, "5 min"], [3600, "1 h"]].map(([value, name]) => {
      const button = h("button", { type: "button", onclick: () => this.choose(value, changed) }, name);
      return [value, button];
    });
    this.element = h("div", { class: "choice", role: "group", "aria-label": "how far back" }, this.buttons.map(([, button]) => button));
    this.mark();
  }

  choose(value, changed) {
    this.value = value;
    const now = new URLSearchParams(location.search);
    if (value === 300) now.delete("span");
    else now.set("span", value);
    history.replaceState(null, "", location.pathname + (now.size ? "?" + now : ""));
    this.mark();
    changed();
  }

  mark() {
    for (const [value, button] of this.buttons) set(button, "aria-pressed", String(value === this.value));
  }
}
