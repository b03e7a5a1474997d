// The explorer page: keeps the view that the address describes, and starts what the user asks for.

import { call } from "./api.js";
import { compare, drawLines, showChoices, showItem } from "./comparison.js";
import { $, element, problem } from "./elements.js";
import { explainPair } from "./explanation.js";
import { randomItem, setUpPicker } from "./item_picker.js";
import { setUpKey } from "./key_dialog.js";
import { setUpNewItem } from "./new_item.js";
import { showRelations } from "./relation_cards.js";
import { isCalibrated, loadRelations, relationOf } from "./relations.js";
import { telling } from "./telling_relations.js";
import { isReproducible, readLink, writeLink } from "./view_link.js";

const OPENING_MS = 500; // between attempts while the index is being opened

let view = { page: "compare", item: null, left: null, right: null, by: "AVG", why: null };
let inWords = false;

async function start() {
  try {
    inWords = (await loadRelations()).in_words;
  } catch (error) {
    if (error.status === 503) {
      notify(element("p.waiting", { role: "status" }, "The index is being opened…"));
      setTimeout(start, OPENING_MS);
      return;
    }
    notify(problem(error, start));
    return;
  }
  notify();
  await follow();
}

/** Show what the address of the page describes. */
async function follow() {
  const link = readLink();
  $("why").onclose = null; // it would change the address that is followed here
  for (const dialog of ["why", "categories", "describe"]) $(dialog).close();
  view = { ...view, page: link.page, by: link.by ?? "AVG", why: link.why, left: link.left, right: link.right };
  try {
    view.item = await linkedItem(link);
  } catch (error) {
    view.item = null;
    notify(
      error.status === 404
        ? problem(new Error(`The catalogue has no item with the ID “${link.item}”. Find another item below.`))
        : problem(error, follow),
    );
  }
  showPage();
  if (view.page === "compare") await present({ replace: true });
}

async function linkedItem(link) {
  if (link.item) return call(`items/${encodeURIComponent(link.item)}`);
  if (link.text) return { text: link.text };
  if (view.item?.preview) return view.item; // an uploaded picture is not in the address
  return (await call("items?limit=1")).items[0] ?? null;
}

/** Show the results for the item; choose relations that tell something about it if none are chosen. */
async function present({ replace = false } = {}) {
  if (!view.item) {
    $("chosen").replaceChildren(element("p.waiting", "Choose an item to see what goes with it."));
    $("comparison").hidden = true;
    return;
  }
  $("comparison").hidden = false;
  showItem(view.item);
  if (!view.left || !view.right) {
    const chosen = await telling(view.item, view.left ?? view.right);
    if (view.left) view.right = chosen.other;
    else [view.left, view.right] = view.right ? [chosen.other, view.right] : [chosen.first, chosen.other];
  }
  view.by = possibleBy(view.item).includes(view.by) ? view.by : possibleBy(view.item)[0];
  writeLink(view, { replace });
  document.title = `${view.item.title ?? view.item.text ?? "Your picture"} – rcml explorer`;
  showComparedBy();
  $("copy").hidden = !isReproducible(view);
  showChoices(view, inWords, (side, choice) => {
    view[side] = choice;
    present();
  });
  await compare(view, explain);
  if (view.why) explainLinked();
}

/** Return the ways to compare an item, the usual one first: a new item may have no words, or no picture. */
function possibleBy(item) {
  if (item.item_id || (item.text && item.base64)) return ["AVG", "TT", "II", "TI", "IT"];
  return item.text ? ["TT", "TI"] : ["II", "IT"];
}

function showComparedBy() {
  const possible = possibleBy(view.item);
  for (const option of $("by").options) option.disabled = !possible.includes(option.value);
  $("by").value = view.by;
}

function use(item) {
  view = { ...view, item, why: null };
  notify();
  present();
  $("main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

async function useRandom() {
  try {
    const item = await randomItem();
    if (item) use(item);
  } catch (error) {
    notify(problem(error));
  }
}

function explain(side, result) {
  view.why = { side, item: result.item.item_id };
  writeLink(view);
  const choice = view[side];
  const relation = choice.words ? { description: choice.words } : (choice.relation ?? result.relation);
  explainPair({
    a: view.item,
    b: result.item,
    relation,
    judged: isCalibrated(choice),
    follow: () => use(result.item),
    closed: () => {
      view.why = null;
      writeLink(view);
    },
  });
}

/** Explain the pair of the link, even if it is no longer among the results that are shown. */
async function explainLinked() {
  const { side, item } = view.why;
  const row = [...$(side).querySelectorAll(".result")].find((one) => one.dataset.item === item);
  if (row) {
    row.click();
    return;
  }
  const found = view[side].none ? null : await call(`items/${encodeURIComponent(item)}`).catch(() => null);
  if (found) explain(side, { item: found });
  else {
    view.why = null;
    writeLink(view, { replace: true });
  }
}

/** Show the page that the view names; the other one is hidden. */
function showPage() {
  const relations = view.page === "relations";
  $("compare").hidden = relations;
  $("relations").hidden = !relations;
  for (const page of ["compare", "relations"]) {
    if (page === view.page) $(`to-${page}`).setAttribute("aria-current", "page");
    else $(`to-${page}`).removeAttribute("aria-current");
  }
  if (!relations) return;
  document.title = "Relations – rcml explorer";
  showRelations({
    compare: ({ relation_id: relation }) => go("compare", under(relation)),
    explain: ({ item_a: a, item_b: b }, { relation_id: relation }) =>
      explainPair({ a, b, relation, judged: true, follow: () => go("compare", { item: b, ...under(relation) }) }),
    changed: forgetRemoved,
  });
}

/** Return the part of a view that shows a relation on the left, and another one on the right. */
const under = (relation) => ({
  left: { relation },
  right: view.right?.relation === relation ? null : view.right,
});

/** Drop choices of relations that no longer exist. */
function forgetRemoved() {
  for (const side of ["left", "right"]) {
    if (view[side]?.relation && !relationOf(view[side].relation)) view[side] = null;
  }
}

/** Go to a page of the explorer, with changes of the view. */
function go(page, changes = {}) {
  view = { ...view, page, why: null, ...changes };
  notify();
  writeLink(view);
  showPage();
  if (page === "compare") present({ replace: true });
  $("main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

const notify = (...shown) => $("notice").replaceChildren(...shown);

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Copy it from the address bar";
  }
  setTimeout(() => {
    $("copy").textContent = "Copy link";
  }, 2000);
}

setUpKey();
setUpPicker({ chosen: use, described: (text) => use({ text }) });
setUpNewItem(use);
$("random").onclick = useRandom;
$("by").onchange = () => {
  view.by = $("by").value;
  present();
};
$("copy").onclick = copyLink;
for (const page of ["compare", "relations"]) {
  $(`to-${page}`).onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
    event.preventDefault();
    if (view.page !== page) go(page);
  };
}
addEventListener("popstate", follow);
new ResizeObserver(drawLines).observe($("columns"));
start();
