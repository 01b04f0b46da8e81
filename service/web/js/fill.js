import { connect } from "./api.js";
import { bar, lines, make } from "./dom.js";
import { t } from "./text.js";

export function start(panel) {
  const { model, texts, words } = panel.querySelector("form").elements;
  connect(
    panel,
    "fill-mask",
    () => ({ model: model.value, inputs: lines(texts), top_k: Number(words.value) }),
    (found) => found.results.map((result, number) => item(lines(texts)[number], result)),
  );
}

function item(text, result) {
  const failed = result.error && make("p", { class: "error" }, result.error.message);
  return make("div", { class: "item" }, make("div", { class: "text" }, text), failed, ...(result.masks ?? []).flatMap(filled));
}

// The words for one mask, and the text with the likeliest.
function filled({ words }) {
  return [...words.map(({ word, score }) => bar(word, score)), make("p", { class: "note" }, `${t("best")}: ${words[0].text}`)];
}
