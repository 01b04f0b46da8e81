// Tabs, language, the key, the models to choose from, and what is typed, which stays.

import { call } from "./api.js";
import * as ask from "./ask.js";
import * as classify from "./classify.js";
import { make, show } from "./dom.js";
import * as explain from "./explain.js";
import * as fillMasks from "./fill.js";
import * as service from "./service.js";
import { current, speak, t } from "./text.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const shown = () => tabs.filter(({ hidden }) => !hidden);
const state = document.getElementById("state");
const EXAMPLES = {
  "classify.texts": "a gorgeous, witty, seductive movie\nIt was not good.",
  "ask.question": "When was the bridge opened?",
  "ask.document": "The town hall was built in 1887 and the bridge was opened in 1902.",
  "fill.texts": "The capital of France is [MASK].",
  "explain.text": "It was not good, but the music is wonderful.",
  "explain.question": "When was the bridge opened?",
};

function select(tab, focus = false) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    const panel = document.getElementById(one.getAttribute("aria-controls"));
    panel.hidden = !chosen;
    if (chosen) panel.dispatchEvent(new Event("shown"));
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  if (focus) tab.focus();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    const to = key === "Home" ? 0 : key === "End" ? -1 : step ? (shown().indexOf(tab) + step) % shown().length : null;
    if (to !== null) select(shown().at(to), true);
  });
}

for (const element of document.querySelectorAll("[data-keep]")) {
  const name = element.dataset.keep;
  element.value = sessionStorage.getItem(name) ?? EXAMPLES[name] ?? "";
  element.addEventListener("input", () => sessionStorage.setItem(name, element.value));
}
const key = document.getElementById("key");
key.value = sessionStorage.getItem("key") ?? "";
key.addEventListener("input", () => sessionStorage.setItem("key", key.value));
key.addEventListener("change", () => look());

const language = document.getElementById("language");
speak(current());
language.value = current();
language.addEventListener("change", () => speak(language.value));

async function look() {
  try {
    const { found } = await call("models");
    for (const choice of document.querySelectorAll("select[data-task]")) fill(choice, found.models);
    const masks = document.getElementById("tab-fill");
    masks.hidden = !found.models.some(({ task }) => task === "fill-mask");
    if (masks.hidden && masks.ariaSelected === "true") select(tabs[0]);
    show(state, found.models.length ? t("ready") : t("waiting"));
  } catch (error) {
    show(state, `${error.message} ${t("away")}`);
  }
}

function fill(choice, models) {
  const fitting = models.filter(({ task }) => choice.dataset.task.split(" ").includes(task));
  const wanted = fitting.map(({ name, task }) => `${name} ${task}`).join();
  if (choice.dataset.filled === wanted) return;
  const before = choice.value || (fitting.some(({ name }) => name === "sentiment") ? "sentiment" : "");
  choice.replaceChildren(...fitting.map(({ name, task }) => make("option", { value: name, "data-task": task }, name)));
  choice.dataset.filled = wanted;
  if (fitting.some(({ name }) => name === before)) choice.value = before;
  choice.form?.dispatchEvent(new Event("input"));
}

for (const [name, part] of Object.entries({ classify, ask, fill: fillMasks, explain, service })) part.start(document.getElementById(name));
select(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);
look();
setInterval(look, 5000);
