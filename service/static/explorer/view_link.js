// The address of a view: what the page shows is written in its link, so a link reproduces it and "Back" works.

const SIDES = ["left", "right"];

/**
 * Read the view from the address of the page.
 *
 * A side is {relation: ID}, {words: text}, {none: true}, or null if the link does not say.
 */
export function readLink() {
  const link = new URLSearchParams(location.search);
  const view = {
    page: link.get("view") === "relations" ? "relations" : "compare",
    item: link.get("item"),
    text: link.get("text"),
    by: link.get("by"),
    why: link.has("why") ? { item: link.get("why"), side: link.get("side") === "right" ? "right" : "left" } : null,
  };
  for (const side of SIDES) {
    const [relation, words] = [link.get(side), link.get(`${side}-words`)];
    view[side] = words ? { words } : relation ? { relation } : relation === "" ? { none: true } : null;
  }
  return view;
}

/** Write the view into the address; as a new step of the history unless `replace` is set. */
export function writeLink(view, { replace = false } = {}) {
  const link = new URLSearchParams();
  if (view.page === "relations") link.set("view", "relations");
  if (view.item?.item_id) link.set("item", view.item.item_id);
  else if (view.item?.text) link.set("text", view.item.text);
  for (const side of SIDES) {
    const chosen = view[side];
    if (chosen?.words) link.set(`${side}-words`, chosen.words);
    else if (chosen) link.set(side, chosen.relation ?? "");
  }
  if (view.by && view.by !== "AVG") link.set("by", view.by);
  if (view.why) {
    link.set("why", view.why.item);
    link.set("side", view.why.side);
  }
  const address = `${location.pathname}?${link}`;
  if (address === `${location.pathname}${location.search}`) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
}

/** Return whether the link reproduces the view: a picture that was uploaded is not part of it. */
export const isReproducible = (view) => !view.item?.preview;
