// Elements of the page and how values are written. Titles and texts are untrusted, so they are set as text, never markup.

import { hasKey, pictureInMemory } from "./api.js";

export const $ = (id) => document.getElementById(id);

/** Make an element with properties, attributes (names with a hyphen, and role) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Make an SVG element with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const button = (text, onclick, properties = {}) =>
  element("button", { type: "button", onclick, ...properties }, text);

/** Show the picture of an item. It says nothing that the title beside it does not say, so it has an empty alt text. */
export function picture(item) {
  if (item.preview) return element("img", { src: item.preview, alt: "", className: "picture" });
  if (!item.image_url) return element("span", { className: "picture missing", "aria-hidden": "true" }, "no picture");
  const path = item.image_url.replace(/^.*\/(?=items\/)/, ""); // below this page, whatever the prefix of a proxy
  const shown = element("img", { alt: "", className: "picture", loading: "lazy" });
  shown.onerror = () => shown.replaceWith(picture({}));
  if (hasKey()) pictureInMemory(path).then((url) => { shown.src = url; }, shown.onerror);
  else shown.src = path;
  return shown;
}

/** Show a share from 0 to 1 as a bar; `mark` draws a line at a threshold. */
export function bar(share, { mark, className = "" } = {}) {
  const made = element("span", { className: `bar ${className}`, "aria-hidden": "true" }, element("span"));
  made.style.setProperty("--share", share);
  if (mark !== undefined) {
    made.append(element("i"));
    made.style.setProperty("--mark", mark);
  }
  return made;
}

/** Show a problem, with a button to try again if there is something to try. */
export function problem(error, retry) {
  return element("div", { className: "problem", role: "alert" }, element("p", {}, error.message),
    retry ? button("Try again", retry) : null);
}

export const percent = (share) =>
  share > 0 && share < 0.01 ? "under 1%" : share < 1 && share >= 0.995 ? "over 99%" : `${Math.round(share * 100)}%`;
export const count = (number) => number.toLocaleString("en");
export const cosine = (score) => score.toFixed(3);
export const categoriesOf = (item) => (item.categories ?? []).join(", ");

/** Write a rank: 1st, 2nd, 3rd, 11th. */
export function ordinal(rank) {
  const ending = rank % 100 >= 11 && rank % 100 <= 13 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[rank % 10] ?? "th";
  return `${rank}${ending}`;
}

/** Return the text in the form for this number: plural(1, "user") is "1 user". */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
