import { connect } from "./api.js";
import { bar, lines, make } from "./dom.js";
import { t } from "./text.js";

export function start(panel) {
  const { model, texts } = panel.querySelector("form").elements;
  connect(
    panel,
    "classify",
    () => ({ model: model.value, inputs: lines(texts) }),
    (found) => found.results.map((result, number) => item(lines(texts)[number], result)),
  );
}

function item(text, result) {
  if (result.error) return make("div", { class: "item" }, text, make("p", { class: "error" }, result.error.message));
  const facts = [`${result.tokens} ${t("tokens")}`];
  if (result.truncated) facts.push(t("cut"));
  if (result.windows > 1) facts.push(`${result.windows} ${t("windows")}`);
  const bars = result.labels.map(({ label, score }) => bar(label, score));
  return make("div", { class: "item" }, make("div", { class: "text" }, text), ...bars, make("p", { class: "note" }, facts.join(", ")));
}
