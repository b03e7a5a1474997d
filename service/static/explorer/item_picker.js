// Finding an item: by words with pictures while you type, by category, or at random.

import { call } from "./api.js";
import { $, button, categoriesOf, count, dialogHead, element, picture, problem } from "./elements.js";

const TYPED_MS = 150; // wait for the next letter before asking
const FOUND = 8;
const PAGE = 24;

let choose = () => {};
let describe = () => {};
let asking = null;
let options = [];
let active = -1;

/** Set up the picker. `chosen` gets an item of the catalogue, `described` the words of a new item. */
export function setUpPicker({ chosen, described }) {
  [choose, describe] = [chosen, described];
  const words = $("words");
  let timer;
  words.oninput = () => {
    clearTimeout(timer);
    timer = setTimeout(search, TYPED_MS);
  };
  words.onkeydown = onKey;
  words.onfocus = () => {
    if (options.length) open(true);
  };
  words.onblur = () => open(false);
  $("browse").onclick = browse;
}

/** Return an item at random; null if the catalogue is empty. */
export async function randomItem() {
  const { total } = await call("items?limit=1");
  if (!total) return null;
  const page = await call(`items?limit=1&cursor=${Math.floor(Math.random() * total)}`);
  return page.items[0] ?? (await call("items?limit=1")).items[0];
}

async function search() {
  const typed = $("words").value.trim();
  asking?.abort();
  if (!typed) return show([]);
  asking = new AbortController();
  try {
    const query = new URLSearchParams({ words: typed, limit: FOUND });
    const { items } = await call(`items?${query}`, { signal: asking.signal });
    const found = items.map((item) =>
      option(
        () => choose(item),
        picture(item),
        element("span", element("b", item.title), element("small", categoriesOf(item))),
      ),
    );
    if (!found.length) found.push(element("p.none", "No item has all of these words."));
    show([
      ...found,
      option(
        () => describe(typed),
        element("span.sign", { "aria-hidden": "true" }, "+"),
        element("span", element("b", `“${typed}”`), element("small", "as a new item, described by these words")),
      ),
    ]);
  } catch (error) {
    if (error.name !== "AbortError") show([element("p.none", { role: "alert" }, error.message)]);
  }
}

function option(take, ...children) {
  const made = element("div.option", { role: "option", "aria-selected": "false" }, ...children);
  made.onclick = () => {
    open(false);
    $("words").value = "";
    options = [];
    take();
  };
  made.onmousedown = (event) => event.preventDefault(); // the field keeps the focus
  return made;
}

function show(found) {
  options = found.filter((one) => one.matches(".option"));
  options.forEach((one, number) => {
    one.id = `found-${number}`;
  });
  $("found").replaceChildren(...found);
  highlight(-1);
  open(found.length > 0);
}

function open(shown) {
  $("found").hidden = !shown;
  $("words").setAttribute("aria-expanded", String(shown));
  if (!shown) highlight(-1);
}

function highlight(number) {
  options[active]?.setAttribute("aria-selected", "false");
  active = number;
  options[active]?.setAttribute("aria-selected", "true");
  options[active]?.scrollIntoView({ block: "nearest" });
  if (options[active]) $("words").setAttribute("aria-activedescendant", options[active].id);
  else $("words").removeAttribute("aria-activedescendant");
}

function onKey(event) {
  if (event.key === "Escape") {
    open(false);
    return;
  }
  if (event.key === "Enter") {
    event.preventDefault();
    if (!$("found").hidden) options[Math.max(active, 0)]?.click();
    else if (options.length) open(true);
    return;
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !options.length) return;
  event.preventDefault();
  if ($("found").hidden) open(true);
  highlight((active + step + options.length) % options.length);
}

async function browse() {
  const dialog = $("categories");
  const [list, items] = [element("div.chips"), element("div", { "aria-live": "polite" })];
  dialog.replaceChildren(dialogHead(dialog, "Browse categories"), list, items);
  if (!dialog.open) dialog.showModal();
  try {
    const { categories, total } = await call("categories");
    const chips = categories.map(({ category, items: number }) => {
      const press = () => {
        for (const one of chips) one.setAttribute("aria-pressed", String(one === chip));
        items.replaceChildren(element("div.tiles"));
        addPage(category, items, 0);
      };
      const chip = button(category, press, ".chip", { "aria-pressed": "false" });
      chip.append(" ", element("small", count(number)));
      return chip;
    });
    list.replaceChildren(...chips);
    if (total > categories.length)
      list.append(element("small", `and ${count(total - categories.length)} smaller ones`));
    if (chips.length) chips[0].click();
    else items.replaceChildren(element("p.waiting", "The items of this catalogue have no categories."));
  } catch (error) {
    list.replaceChildren(problem(error, browse));
  }
}

async function addPage(category, items, cursor) {
  try {
    const page = await call(`items?${new URLSearchParams({ category, limit: PAGE, cursor })}`);
    const tiles = page.items.map((item) => {
      const take = () => {
        $("categories").close();
        choose(item);
      };
      const tile = button("", take, ".tile");
      tile.append(picture(item), element("span", item.title));
      return tile;
    });
    items.querySelector(".tiles").append(...tiles);
    items.querySelector(".more")?.remove();
    if (page.next_cursor) items.append(button("Show more", () => addPage(category, items, page.next_cursor), ".more"));
  } catch (error) {
    items.append(problem(error));
  }
}
