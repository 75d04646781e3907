// Which page this is, and the keys that work on all of them.

import { h } from "./dom.js";

const PAGES = {
  "/": ["./overview.js"],
  "/services": ["./overview.js"],
  "/service": ["./scope.js", "service"],
  "/client": ["./scope.js", "client"],
  "/server": ["./scope.js", "server"],
  "/delegator": ["./names.js"],
  "/traffic": ["./traffic.js"],
  "/admin/metrics": ["./metrics.js"],
  "/logging": ["./logging.js"],
  "/config": ["./config.js"],
};

const main = document.getElementById("main");

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const search = main.querySelector("input[data-search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
});

const [module, kind] = PAGES[location.pathname] ?? PAGES["/"];
try {
  const { show } = await import(module);
  await show(main, kind);
} catch (error) {
  console.error(error);
  main.append(h("p", { class: "note bad", role: "alert" }, `This page could not be shown: ${error.message}`));
}
document.body.dataset.ready = "yes";
