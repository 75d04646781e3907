// Names: where a name leads, step by step, and the header that makes one request go elsewhere.

import { read } from "./data.js";
import { h, say } from "./dom.js";

function address(addr) {
  switch (addr.type) {
    case "bound": return addr.addrs.length ? addr.addrs.map((a) => `${a.ip}:${a.port}`).join(", ") : "no address";
    case "failed": return `failed: ${addr.cause}`;
    default: return addr.type;
  }
}

const WORDS = {
  neg: ["bad", "leads nowhere: the next alternative is tried"],
  fail: ["bad", "fails: nothing after it is tried"],
  empty: ["bad", "an empty set of addresses"],
};

/** A node of the delegation and what is beneath it. */
function node(tree, weight) {
  const rule = tree.dentry ? h("code", { class: "rule" }, `${tree.dentry.prefix} ⇒ ${tree.dentry.dst}`) : undefined;
  const name = h("strong", { class: "name" }, tree.path ?? tree.name ?? "");
  const line = [weight === undefined ? undefined : [h("span", { class: "chip idle" }, `weight ${weight}`), " "], name, rule, " "];
  switch (tree.type) {
    case "delegate": return h("li", {}, line, h("ol", {}, node(tree.delegate)));
    case "transformation": return h("li", {}, line, h("span", { class: "chip idle" }, `transformed by ${tree.name}`), h("ol", {}, node(tree.tree)));
    case "alt": return h("li", {}, line, h("span", { class: "small" }, "the first of these that leads somewhere"), h("ol", { class: "many" }, tree.alt.map((one) => node(one))));
    case "union": return h("li", {}, line, h("span", { class: "small" }, "one of these, by weight"), h("ol", { class: "many" }, tree.union.map((one) => node(one.tree, one.weight))));
    case "leaf": {
      const good = tree.bound.addr.type === "bound" && tree.bound.addr.addrs.length > 0;
      return h("li", {}, line, h("ol", {}, h("li", {}, h("span", { class: `chip ${good ? "ok" : "bad"}` }, good ? "● bound" : "▲ no address"), " ", h("strong", { class: "name" }, tree.bound.id), tree.bound.path && tree.bound.path !== "/" ? ` (the rest: ${tree.bound.path})` : "", h("p", { class: "addresses" }, address(tree.bound.addr)))));
    }
    case "exception": return h("li", {}, line, h("span", { class: "chip bad" }, `▲ ${tree.message}`));
    default: {
      const [level, word] = WORDS[tree.type] ?? ["idle", tree.type];
      return h("li", {}, line, h("span", { class: `chip ${level}` }, `▲ ${word}`));
    }
  }
}

export async function show(main) {
  const given = new URLSearchParams(location.search);
  const config = await read("/config.json").catch(() => ({ routers: [] }));
  const routers = (config.routers ?? []).map((router) => ({ label: router.label ?? router.protocol, prefix: router.dstPrefix ?? "/svc", dtab: (router.dtab ?? "").split(";").map((d) => d.trim()).filter(Boolean), servers: router.servers ?? [] }));
  const choose = h("select", { id: "router" }, routers.map(({ label }) => h("option", { value: label, selected: label === given.get("router") }, label)));
  const path = h("input", { id: "path", value: given.get("path") ?? "", placeholder: "/svc/web", spellcheck: "false", autocomplete: "off", required: true });
  const dtab = h("textarea", { id: "dtab", rows: 6, spellcheck: "false" });
  const extra = h("textarea", { id: "override", rows: 2, spellcheck: "false", placeholder: "/svc/web => /$/inet/127.0.0.1/8081" });
  extra.value = given.get("override") ?? "";
  const result = h("div", { class: "delegation", role: "status" });
  const header = h("pre", {});
  const tryout = h("section", { class: "card", hidden: true }, h("h2", {}, "Try it with one request"), h("p", { class: "small" }, "The override counts for the request that carries this header, and for those it causes."), header);

  const router = () => routers.find(({ label }) => label === choose.value) ?? { label: choose.value, prefix: "/svc", dtab: [], servers: [] };
  const fill = () => {
    dtab.value = router().dtab.map((dentry) => dentry.replace(/\s*=>\s*/, " => ")).join(";\n");
  };
  fill();
  choose.addEventListener("change", fill);

  const resolve = async () => {
    const added = extra.value.trim().replace(/;\s*$/, "");
    const whole = [dtab.value.trim().replace(/;\s*$/, ""), added].filter(Boolean).join(";");
    const now = new URLSearchParams({ router: choose.value, path: path.value });
    if (added) now.set("override", added);
    history.replaceState(null, "", location.pathname + "?" + now);
    result.replaceChildren(h("p", {}, "asking …"));
    try {
      const tree = await read("/delegator.json", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ namespace: choose.value || undefined, dtab: whole, path: path.value }) });
      result.replaceChildren(h("ol", { class: "tree" }, node(tree)));
    } catch (error) {
      result.replaceChildren(h("p", { class: "chip bad" }, `▲ ${error.message}`));
    }
    const { prefix, servers } = router();
    const host = path.value.startsWith(prefix + "/") ? path.value.slice(prefix.length + 1).split("/").at(-1) : undefined;
    tryout.hidden = !added;
    const where = servers[0] ? `http://${servers[0].ip === "0.0.0.0" ? location.hostname : (servers[0].ip ?? "localhost")}:${servers[0].port ?? 4140}/` : "http://localhost:4140/";
    const one = added.replaceAll("\n", " ");
    say(header, `l5d-dtab: ${one}\n\ncurl -s -H 'l5d-dtab: ${one.replaceAll("'", "'\\''")}'${host ? ` -H 'Host: ${host}'` : ""} ${where}`);
  };

  const form = h(
    "form",
    { class: "card form" },
    h("label", { for: "router" }, "Router", choose),
    h("label", { for: "path" }, "Name", path),
    h("label", { for: "dtab" }, "Dtab, later entries first", dtab),
    h("label", { for: "override" }, "Override for one request (optional)", extra),
    h("button", { type: "submit", class: "primary" }, "Show where it leads"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    resolve();
  });
  main.replaceChildren(h("h1", {}, "Names"), h("div", { class: "split" }, form, h("section", { class: "card" }, h("h2", {}, "Where it leads"), result)), tryout);
  if (path.value) await resolve();
  else result.replaceChildren(h("p", { class: "empty" }, "Type a name, such as one of the services' with a slash in front, to see each step of its delegation."));
}
