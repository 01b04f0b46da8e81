// Where each token looked: one layer and one head of a text as a grid, and what of each word reaches the answer.

import { call } from "./api.js";
import { drawn, make, percent, show } from "./dom.js";
import { t } from "./text.js";

const MOST = 64; // tokens; more are too small to see
const CELL = 14;
const MARGIN = 90;

// `subject` is the request's text, `shade` shows words with scores.
export async function attention(subject, shade) {
  const { found } = await call("explain", { ...subject, method: "attention", layers: [] });
  const { found: listed } = await call(`models/${found.model.name}`);
  const facts = listed.versions.find(({ version }) => version === found.model.version);
  const place = make("div", { "aria-live": "polite" });
  const layer = choice(t("layer"), facts.layers * facts.architecture.inner_group_num);
  const head = choice(t("head"), facts.architecture.num_attention_heads);
  const look = async () => {
    const wanted = { ...subject, method: "attention", layers: [Number(layer.value)], heads: [Number(head.value)] };
    try {
      const { found: one } = await call("explain", wanted);
      show(place, one.tokens > MOST ? make("p", { class: "note" }, t("tooMany")) : grid(one));
    } catch (error) {
      show(place, make("p", { class: "error" }, error.message));
    }
  };
  for (const one of [layer, head]) one.addEventListener("change", look);
  await look();
  const pick = make("p", {}, make("label", {}, t("layer"), " ", layer), " ", make("label", {}, t("head"), " ", head));
  return [make("h2", {}, t("attention")), make("p", {}, t("reaches")), ...shade(found), pick, place];
}

function choice(name, count) {
  const numbers = Array.from({ length: count }, (_, index) => make("option", { value: index + 1 }, String(index + 1)));
  const made = make("select", { "aria-label": name }, ...numbers);
  made.value = String(count);
  return made;
}

// Rows look at columns; the darker, the more.
function grid({ pieces, attention }) {
  const [{ weights: [weights] }] = attention;
  const size = MARGIN + CELL * pieces.length;
  const names = pieces.map(({ text }) => text || "·");
  const picture = drawn("svg", { viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: "img", "aria-label": told(names, weights) });
  names.forEach((name, index) => {
    const at = MARGIN + CELL * (index + 0.8);
    picture.append(drawn("text", { x: MARGIN - 4, y: at, "text-anchor": "end" }, name));
    picture.append(drawn("text", { x: 0, y: 0, transform: `translate(${at},${MARGIN - 4}) rotate(-90)` }, name));
  });
  weights.forEach((row, from) =>
    row.forEach((weight, to) => {
      const cell = { x: MARGIN + CELL * to, y: MARGIN + CELL * from, width: CELL, height: CELL, class: "cell" };
      picture.append(drawn("rect", { ...cell, "fill-opacity": weight }, drawn("title", {}, `${names[from]} → ${names[to]}: ${percent(weight)}`)));
    }),
  );
  return picture;
}

// The strongest looks, for those who do not see the picture.
function told(names, weights) {
  const all = weights.flatMap((row, from) => row.map((weight, to) => [weight, `${names[from]} → ${names[to]} ${percent(weight)}`]));
  return all.sort(([a], [b]) => b - a).slice(0, 5).map(([, words]) => words).join(", ");
}
