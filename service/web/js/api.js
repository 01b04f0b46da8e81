// Requests to the service, its errors in its own words, and the same request as curl and Python.

import { bar, drawn, make, show } from "./dom.js";
import { t } from "./text.js";

const base = new URL(".", document.baseURI);
const key = () => document.getElementById("key").value.trim();

export class Failed extends Error {}

export async function call(path, body) {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  const options = body ? { method: "POST", body: JSON.stringify(body), headers } : { headers };
  let response;
  try {
    response = await fetch(new URL(path, base), options);
  } catch {
    throw new Failed(t("network"));
  }
  const found = response.headers.get("Content-Type")?.includes("json") ? await response.json() : await response.text();
  if (!response.ok && found.error) {
    const again = response.headers.get("Retry-After");
    throw new Failed(`${found.error.message}${again ? ` (Retry-After: ${again} s)` : ""}`);
  }
  return { found, timing: response.headers.get("Server-Timing") ?? "" };
}

// One form: sends `request()`, shows what `answer(found)` makes of it, and the errors.
export function connect(panel, path, request, answer) {
  const form = panel.querySelector("form");
  const result = panel.querySelector(".result");
  const button = form.querySelector("button");
  const tell = async () => {
    const body = await request();
    showCode(panel, path, body);
    return body;
  };
  form.addEventListener("input", () => tell().catch(() => {}));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    show(result, make("p", {}, t("waiting")));
    try {
      const { found, timing } = await call(path, await tell());
      show(result, ...(await answer(found)), timeline(timing));
    } catch (error) {
      show(result, make("p", { class: "error", role: "alert" }, error.message));
      if (!(error instanceof Failed)) throw error;
    } finally {
      button.disabled = false;
    }
  });
  tell().catch(() => {});
}

function showCode(panel, path, body) {
  const address = new URL(path, base).href;
  const json = JSON.stringify(body);
  const secret = key() ? " -H 'Authorization: Bearer KEY'" : "";
  const curl = `curl ${address}${secret} -d '${json.replaceAll("'", "'\\''")}'`;
  const header = key() ? ', headers={"Authorization": "Bearer KEY"}' : "";
  const python = `import httpx, json\nbody = json.loads(${JSON.stringify(json)})\nprint(httpx.post("${address}", json=body${header}).json())`;
  show(panel.querySelector(".code"), make("pre", {}, curl), make("pre", {}, python));
}

// Server-Timing as a bar: encode, queue, run, decode.
export function timeline(header) {
  const stages = [...header.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]);
  const total = stages.reduce((sum, [, value]) => sum + value, 0);
  if (!total) return null;
  const label = stages.map(([name, value]) => `${name} ${value.toFixed(1)} ms`).join(", ");
  const picture = drawn("svg", { viewBox: "0 0 400 14", width: 400, height: 14, role: "img", "aria-label": label });
  let at = 0;
  stages.forEach(([, value], number) => {
    const width = (400 * value) / total;
    picture.append(drawn("rect", { x: at, y: 0, width, height: 14, class: `c${number % 4}` }));
    at += width;
  });
  return make("div", { class: "note" }, `${t("time")}: ${label}`, make("br"), picture);
}

export { bar };
