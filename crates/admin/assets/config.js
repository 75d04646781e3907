// The configuration as it was understood.

import { read } from "./data.js";
import { h } from "./dom.js";

export async function show(main) {
  const config = await read("/config.json");
  // Dtabs are read more easily with an entry on each line; the page stays JSON otherwise.
  const text = JSON.stringify(config, null, 2);
  const dtabs = (config.routers ?? []).filter((router) => router.dtab).map((router) => h("section", { class: "card" }, h("h2", {}, "Dtab of ", h("span", { class: "name" }, router.label ?? router.protocol)), h("pre", {}, router.dtab.split(";").map((dentry) => dentry.trim().replace(/\s*=>\s*/, " => ")).filter(Boolean).join(" ;\n"))));
  main.replaceChildren(h("h1", {}, "Config"), ...dtabs, h("section", { class: "card" }, h("h2", {}, "As loaded ", h("small", {}, h("a", { href: "/config.json" }, "config.json"))), h("pre", {}, text)));
}
