// Elements of the page, and how values are written. Titles are untrusted, so they are set as text, never as markup.

import { hasKey, pictureInMemory } from "./api.js";

export const $ = (id) => document.getElementById(id);

/**
 * Make an element: its name with classes as in CSS, then perhaps an object of properties, then its children.
 *
 * Properties whose names have a hyphen, and role, are set as attributes. Children that are null are left out.
 */
export function element(selector, ...parts) {
  const [name, ...classes] = selector.split(".");
  const made = document.createElement(name);
  made.classList.add(...classes);
  const properties = parts[0]?.constructor === Object ? parts.shift() : {};
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...parts.filter((part) => part !== null && part !== undefined));
  return made;
}

/** Make an SVG element with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Make a button; `look` is a class, such as ".main". */
export const button = (text, onclick, look = "", properties = {}) =>
  element(`button${look}`, { type: "button", onclick, ...properties }, text);

/** Show the picture of an item. It says nothing that the title beside it does not say, so it has an empty alt text. */
export function picture(item) {
  if (item.preview) return element("img.picture", { src: item.preview, alt: "" });
  if (!item.image_url) return element("span.picture.missing", { "aria-hidden": "true" }, "no picture");
  const path = item.image_url.replace(/^.*\/(?=items\/)/, ""); // below this page, whatever the prefix of a proxy
  const shown = element("img.picture", { alt: "", loading: "lazy" });
  shown.onerror = () => shown.replaceWith(picture({}));
  if (hasKey()) {
    shown.onload = () => URL.revokeObjectURL(shown.src);
    pictureInMemory(path).then((url) => Object.assign(shown, { src: url }), shown.onerror);
  } else shown.src = path;
  return shown;
}

/** Show a share from 0 to 1 as a bar; `mark` draws a line at a threshold. */
export function bar(share, mark) {
  const made = element("span.bar", { "aria-hidden": "true" }, element("span"));
  made.style.setProperty("--share", share);
  if (mark !== undefined) {
    made.append(element("i"));
    made.style.setProperty("--mark", mark);
  }
  return made;
}

/** Make the head of a dialog: its title, a note below it, and a button that closes it. */
export function dialogHead(dialog, title, note = "") {
  const heading = element("h2", { id: `${dialog.id}-title` }, title);
  return element(
    "div.dialog-head",
    element("div", heading, element("p.soft", note)),
    button("Close", () => dialog.close()),
  );
}

/** Show a problem, with a button to try again if there is something to try. */
export function problem(error, retry) {
  return element(
    "div.problem",
    { role: "alert" },
    element("p", error.message),
    retry ? button("Try again", retry) : null,
  );
}

export const percent = (share) =>
  share > 0 && share < 0.01 ? "under 1%" : share < 1 && share >= 0.995 ? "over 99%" : `${Math.round(share * 100)}%`;
export const count = (number) => number.toLocaleString("en");
export const cosine = (score) => score.toFixed(3);
export const categoriesOf = (item) => (item.categories ?? []).join(", ");

/** Write a rank: 1st, 2nd, 3rd, 11th. */
export function ordinal(rank) {
  const ending = rank % 100 >= 11 && rank % 100 <= 13 ? "th" : ({ 1: "st", 2: "nd", 3: "rd" }[rank % 10] ?? "th");
  return `${rank}${ending}`;
}

/** Return the text in the form for this number: plural(1, "user") is "1 user". */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
