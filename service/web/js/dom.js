// Elements are made, never parsed: a text of a user is text wherever it is shown.

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function drawn(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const show = (place, ...children) => place.replaceChildren(...children.filter(Boolean));

export function bar(label, value) {
  const meter = make("meter", { min: 0, max: 1, value: Math.max(0, Math.min(1, value)), "aria-label": label });
  return make("div", { class: "bar" }, make("span", {}, label), meter, make("span", {}, percent(value)));
}

// The lines of a field that say something.
export const lines = (field) => field.value.split("\n").filter((line) => line.trim());

// Code points, which the service counts, to JavaScript's units.
export const points = (text) => Array.from(text);
