import { call, connect, Failed } from "./api.js";
import { attention } from "./attention.js";
import { drawn, make, percent, points } from "./dom.js";
import { t } from "./text.js";

export function start(panel) {
  const { model, question, text, phrases } = panel.querySelector("form").elements;
  const reading = () => model.selectedOptions[0]?.dataset.task === "question-answering";
  const fit = () => {
    panel.querySelector("[data-for]").hidden = !reading();
  };
  model.addEventListener("change", fit);
  new MutationObserver(fit).observe(model, { childList: true });
  const subject = () =>
    reading() ? { model: model.value, question: question.value, context: text.value } : { model: model.value, text: text.value };
  connect(
    panel,
    "explain",
    () => (phrases.checked ? { ...subject(), phrases: true } : subject()),
    async (found) => {
      const { found: deep } = await call("explain", { ...subject(), method: "depth" });
      return [...words(found, subject()), ...pairs(found), ...turns(deep), ...(await seen(subject()))];
    },
  );
}

// What cannot be shown of a long text, or an older version, keeps nothing else from being shown.
async function seen(subject) {
  try {
    return await attention(subject, (found) => fields(found, subject));
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    return [make("h2", {}, t("attention")), make("p", { class: "note" }, error.message)];
  }
}

function words(found, subject) {
  const what = found.label ?? found.answer.text;
  return [make("h2", {}, `${what}: ${percent(found.score)}`), make("p", {}, t("without")), ...fields(found, subject)];
}

// Each text with its words shaded by their scores.
function fields(found, subject) {
  const most = Math.max(1e-9, ...found.words.map(({ score }) => Math.abs(score ?? 0)));
  const names = [...new Set(found.words.map(({ field }) => field))];
  return names.map((field) => shaded(points(subject[field]), found.words.filter((word) => word.field === field), most));
}

function shaded(letters, parts, most) {
  const place = make("div", { class: "text" });
  let at = 0;
  for (const { start, end, score } of parts) {
    const kind = score === null ? "" : score >= 0 ? "for" : "against";
    const told = score === null ? null : `${letters.slice(start, end).join("")}: ${percent(score)}`;
    const word = make("span", { class: kind, title: told }, letters.slice(start, end).join(""));
    word.style.setProperty("--weight", (0.4 * Math.abs(score ?? 0)) / most);
    place.append(letters.slice(at, start).join(""), word);
    at = end;
  }
  place.append(letters.slice(at).join(""));
  return place;
}

function pairs(found) {
  if (!found.phrases) return [];
  const known = found.phrases.filter(({ interaction }) => interaction !== null);
  const top = known.sort((a, b) => Math.abs(b.interaction) - Math.abs(a.interaction)).slice(0, 8);
  const rows = top.map(({ text, score, interaction }) =>
    make("tr", {}, make("td", {}, text), make("td", { class: "number" }, percent(score)), make("td", { class: "number" }, percent(interaction))));
  const head = make("tr", {}, make("th", {}, t("together")), make("th", { class: "number" }, ""), make("th", { class: "number" }, t("interaction")));
  return [make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))];
}

// The decision by depth as a small chart: a line a label, or the answer's score and what it was.
function turns(found) {
  const depths = found.depths;
  const lines = depths[0].labels
    ? depths.at(-1).labels.slice(0, 4).map(({ label }) => [label, depths.map((one) => one.labels.find((l) => l.label === label).score)])
    : [[t("answers"), depths.map((one) => one.answers[0]?.score ?? 0)]];
  const told = lines.map(([label, scores]) => `${label}: ${scores.map(percent).join(", ")}`).join("; ");
  const [width, height] = [480, 160];
  const x = (index) => 40 + (index * (width - 60)) / Math.max(1, depths.length - 1);
  const y = (score) => height - 24 - score * (height - 40);
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": told });
  for (const score of [0, 0.5, 1]) {
    chart.append(drawn("line", { x1: 40, x2: width - 20, y1: y(score), y2: y(score), class: "axis" }));
    chart.append(drawn("text", { x: 4, y: y(score) + 4 }, `${100 * score} %`));
  }
  depths.forEach(({ depth }, index) => chart.append(drawn("text", { x: x(index) - 3, y: height - 6 }, String(depth))));
  lines.forEach(([label, scores], number) => {
    chart.append(drawn("polyline", { class: `curve c${number}`, points: scores.map((score, index) => `${x(index)},${y(score)}`).join(" ") }));
  });
  const rows = depths.map((one) => make("tr", {}, make("td", {}, String(one.depth)), make("td", {}, best(one))));
  const leaves = make("p", { class: "note" }, `${t("leaves")} ${found.leaves_at}`);
  const head = make("tr", {}, make("th", {}, t("depth")), make("th", {}, ""));
  return [make("h2", {}, t("forms")), chart, leaves, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))];
}

function best({ labels, answers }) {
  if (labels) return labels.slice(0, 4).map(({ label, score }) => `${label} ${percent(score)}`).join(", ");
  return answers.length ? `${answers[0].text} (${percent(answers[0].score)})` : t("noAnswer");
}
