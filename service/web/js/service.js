// Live figures, from two looks at /metrics.

import { call } from "./api.js";
import { make, percent, show } from "./dom.js";
import { t } from "./text.js";

const EVERY = 2000;
let before = null;

export function start(panel) {
  const address = new URL("metrics", document.baseURI).href;
  show(panel.querySelector(".code"), make("pre", {}, `curl ${address}`), make("pre", {}, `import httpx\nprint(httpx.get("${address}").text)`));
  const look = async () => {
    if (panel.hidden) return;
    try {
      const [{ found: page }, { found: listed }] = [await call("metrics"), await call("models")];
      const now = { at: performance.now(), samples: read(page) };
      show(panel.querySelector(".result"), figures(now, before), models(listed));
      before = now;
    } catch (error) {
      show(panel.querySelector(".result"), make("p", { class: "error" }, error.message));
    }
  };
  setInterval(look, EVERY);
  panel.addEventListener("shown", look);
}

// {name: [[labels, value], ...]}
function read(page) {
  const samples = {};
  for (const [, name, labels, value] of page.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)) (samples[name] ??= []).push([labels ?? "", Number(value)]);
  return samples;
}

const sum = (now, name, part = "") => (now?.samples[name] ?? []).filter(([labels]) => labels.includes(part)).reduce((all, [, value]) => all + value, 0);

function figures(now, then) {
  const seconds = then ? (now.at - then.at) / 1000 : Infinity;
  const grown = (name, part) => sum(now, name, part) - (then ? sum(then, name, part) : 0);
  const run = sum(now, "albert_layers_total", 'fate="run"');
  const saved = sum(now, "albert_layers_total", 'fate="saved"');
  const steps = sum(now, "albert_step_tokens_count");
  const asked = ["/classify", "/qa", "/explain"].reduce((all, route) => all + grown("albert_requests_total", `route="${route}"`), 0);
  const rows = [
    [t("perSecond"), then ? (asked / seconds).toFixed(1) : "…"],
    [t("typical"), quantile(now, 0.5)],
    [t("slow"), quantile(now, 0.95)],
    [t("busy"), then ? percent(grown("albert_device_busy_seconds_total") / seconds) : "…"],
    [t("queued"), String(sum(now, "albert_queue_tokens"))],
    [t("step"), steps ? (sum(now, "albert_step_tokens_sum") / steps).toFixed(0) : "…"],
    [t("saved"), run + saved ? percent(saved / (run + saved)) : "…"],
    [t("refused"), String(sum(now, "albert_refusals_total"))],
  ];
  return make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", { class: "number" }, value)))));
}

// The upper end of the bucket that holds it, of all requests since the start.
function quantile(now, share) {
  const buckets = new Map();
  for (const [labels, value] of now.samples.albert_request_seconds_bucket ?? []) {
    if (!/route="\/(classify|qa|explain)"/.test(labels)) continue;
    const end = Number(/le="([^"]+)"/.exec(labels)[1].replace("+Inf", "Infinity"));
    buckets.set(end, (buckets.get(end) ?? 0) + value);
  }
  const ends = [...buckets.keys()].sort((a, b) => a - b);
  const total = buckets.get(Infinity) ?? 0;
  const found = ends.find((end) => buckets.get(end) >= share * total);
  return total && found !== Infinity ? `${(1000 * found).toFixed(0)} ms` : "…";
}

function models(listed) {
  const head = ["model", "version", "task", "precision"].map((name) => make("th", {}, t(name)));
  const rows = listed.models.map((one) => make("tr", {}, ...[one.name, one.version, one.task, one.precision].map((value) => make("td", {}, String(value)))));
  const failures = listed.failures.map((one) => make("p", { class: "error" }, `${one.name}/${one.version}: ${one.reason}`));
  return make("div", {}, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)), ...failures);
}
