import { connect, Failed } from "./api.js";
import { bar, drawn, make, percent, points } from "./dom.js";
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
      if (documents.some(({ file }) => file)) Object.assign(body, { texts: true, pictures: true });
      return none.checked ? { ...body, no_answer: true } : body;
    },
    (found) => shown(found, documents),
  );
}

async function given(pasted) {
  const documents = pasted.trim() ? [{ id: t("text"), text: pasted }] : [];
  for (const file of dropped) {
    if (file.size > LARGEST) throw new Failed(`${file.name} ${t("large")}`);
    documents.push({ id: file.name, ...(await content(file)) });
  }
  return documents;
}

// Text is read here; what is none, a PDF or a picture of a page, the service reads.
async function content(file) {
  const bytes = await file.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (!text.includes("\0") && !text.trimStart().startsWith("%PDF-")) return { text };
  } catch {
    // no UTF-8
  }
  return { file: await base64(file) };
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Failed(`${file.name} ${t("gone")}`));
    reader.readAsDataURL(file);
  });
}

function shown(found, given) {
  const read = new Map((found.texts ?? []).map(({ document, text }) => [document, text]));
  const documents = given.map(({ id, text }) => ({ id, text: text ?? read.get(id) ?? "" }));
  const unread = found.unread ? `; ${found.unread} ${t("unread")}` : "";
  const doubt = make("p", { class: "note" }, `${t("noAnswerScore")}: ${percent(found.no_answer_score)}${unread}`);
  if (!found.answers.length) return [make("p", {}, t("noAnswer")), doubt];
  const marks = new Map();
  const places = documents.map(({ id, text }) => {
    const spans = found.answers.map((answer, number) => ({ ...answer, number })).filter(({ document }) => document === id);
    return spans.length ? make("div", { class: "item" }, make("h2", {}, id), marked(text, spans, marks)) : null;
  });
  const list = found.answers.map((answer, number) => {
    const jump = make("button", { type: "button", onclick: () => choose(marks, number) }, t("next"));
    return make("div", { class: "item" }, bar(answer.text, answer.score), make("span", { class: "note" }, `${answer.document}${answer.page ? `, ${t("page")} ${answer.page}` : ""} `), jump);
  });
  const skipped = (found.skipped ?? []).map((one) => make("p", { class: "error" }, `${one.document}: ${one.error.message}`));
  return [...list, doubt, ...skipped, ...(found.pages ?? []).map((page) => paper(page, found.answers)), ...places];
}

// A page of a file, with a box around each answer.
function paper({ document, page, picture }, answers) {
  const title = `${document}, ${t("page")} ${page}`;
  const boxes = drawn("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const answer of answers.filter((one) => one.document === document && one.page === page))
    for (const [left, top, right, bottom] of answer.boxes)
      boxes.append(drawn("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "found" }, drawn("title", {}, answer.text)));
  return make("figure", {}, make("figcaption", {}, title), make("div", { class: "paper" }, make("img", { src: picture, alt: title }), boxes));
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
