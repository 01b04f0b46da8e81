import { connect, Failed } from "./api.js";
import { bar, make, percent, points } from "./dom.js";
import { t } from "./text.js";

const LARGEST = 10 * 1024 * 1024;
let dropped = [];

export function start(panel) {
  const form = panel.querySelector("form");
  const { model, question, document: pasted, files, top, none } = form.elements;
  files.addEventListener("change", () => (dropped = [...files.files]));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    dropped = [...event.dataTransfer.files];
    form.dispatchEvent(new Event("input"));
  });
  let documents = [];
  connect(
    panel,
    "qa",
    async () => {
      documents = await given(pasted.value);
      const body = { model: model.value, question: question.value, documents, top_k: Number(top.value) || 1 };
      return none.checked ? { ...body, no_answer: true } : body;
    },
    (found) => shown(found, documents),
  );
}

async function given(pasted) {
  const texts = pasted.trim() ? [{ id: t("text"), text: pasted }] : [];
  for (const file of dropped) {
    if (file.size > LARGEST) throw new Failed(`${file.name} ${t("large")}`);
    try {
      texts.push({ id: file.name, text: new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()) });
    } catch {
      throw new Failed(`${file.name} ${t("binary")}`);
    }
  }
  return texts;
}

function shown(found, documents) {
  const doubt = make("p", { class: "note" }, `${t("noAnswerScore")}: ${percent(found.no_answer_score)}`);
  if (!found.answers.length) return [make("p", {}, t("noAnswer")), doubt];
  const marks = new Map();
  const places = documents.map(({ id, text }) => {
    const spans = found.answers.map((answer, number) => ({ ...answer, number })).filter(({ document }) => document === id);
    return spans.length ? make("div", { class: "item" }, make("h2", {}, id), marked(text, spans, marks)) : null;
  });
  const list = found.answers.map((answer, number) => {
    const jump = make("button", { type: "button", onclick: () => choose(marks, number) }, t("next"));
    return make("div", { class: "item" }, bar(answer.text, answer.score), make("span", { class: "note" }, `${answer.document} `), jump);
  });
  return [...list, doubt, ...places];
}

function marked(text, spans, marks) {
  const letters = points(text);
  const place = make("div", { class: "text" });
  let at = 0;
  for (const { start, end, number } of spans.sort((a, b) => a.start - b.start)) {
    const mark = make("mark", { tabindex: "-1" }, letters.slice(start, end).join(""));
    marks.set(number, mark);
    place.append(letters.slice(at, start).join(""), mark);
    at = end;
  }
  place.append(letters.slice(at).join(""));
  return place;
}

function choose(marks, number) {
  for (const mark of marks.values()) mark.classList.remove("chosen");
  const mark = marks.get(number);
  mark.classList.add("chosen");
  mark.scrollIntoView({ block: "center" });
  mark.focus();
}
