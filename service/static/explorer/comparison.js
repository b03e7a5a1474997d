// The results for one item under two relations, side by side. Lines join the results that both sides show.

import { call } from "./api.js";
import { $, bar, cosine, element, percent, picture, problem, svg } from "./elements.js";
import { joined, movementInWords, movements, movementText, SHOWN, summary } from "./movement.js";
import { askedItem, askedRelation, choiceName, isCalibrated, nameOf } from "./relations.js";
import { relationChoice } from "./relation_choice.js";
import { isReproducible } from "./view_link.js";

const DEPTH = 100; // results that are asked for, to tell how far a result moved
const DEPTH_IN_WORDS = 40; // for a relation in words, more results take more time
const SIDES = ["left", "right"];

let latest = 0;
let shown = null;

/** Show the heads of both columns; `changed` gets the side and the new choice. */
export function showChoices(view, inWords, changed) {
  for (const side of SIDES) {
    const head = relationChoice(side, view[side], inWords, (choice) => changed(side, choice));
    const list = element("div.list");
    $(side).replaceChildren(head, list);
  }
}

/** Ask for the results of both sides and show them; `explain` gets the side and the result that was chosen. */
export async function compare(view, explain) {
  const mine = ++latest;
  shown = null;
  for (const side of SIDES)
    listOf(side).replaceChildren(...Array.from({ length: SHOWN }, () => element("div.skeleton.row")));
  $("columns").setAttribute("aria-busy", "true");
  $("summary").textContent = "Comparing…";
  $("lines").replaceChildren();
  const answers = await Promise.all(SIDES.map((side) => rank(view, view[side]).catch((error) => error)));
  if (mine !== latest) return;
  $("columns").removeAttribute("aria-busy");
  const failed = answers.find((answer) => answer instanceof Error);
  const [left, right] = answers.map((answer) => answer.results ?? []);
  const moved = movements(left, right);
  shown = { view, moved };
  $("summary").textContent = failed ? "" : summary(moved, ...SIDES.map((side) => choiceName(view[side])));
  SIDES.forEach((side, number) => {
    if (answers[number] instanceof Error)
      listOf(side).replaceChildren(problem(answers[number], () => compare(view, explain)));
    else showSide(side, moved[side], answers[number], answers[1 - number], explain);
  });
  drawLines();
  SIDES.forEach((side) => showProbabilities(side, view, moved[side], () => mine === latest));
}

const listOf = (side) => $(side).querySelector(".list");

function rank(view, choice) {
  const { item } = view;
  const body = { k: choice.words ? DEPTH_IN_WORDS : DEPTH };
  if (!choice.none) body.relation = askedRelation(choice);
  const asked = item.item_id ? { item_id: item.item_id } : askedItem(item);
  return call("retrieve", { body: { ...body, ...asked, similarity: view.by } });
}

function showSide(side, results, answer, other, explain) {
  const depth = other instanceof Error ? 0 : other.results.length;
  const rows = results.map((result) => row(side, result, depth, answer, explain));
  const list = element("ol", { "aria-label": `Results under ${choiceName(shown.view[side])}` }, ...rows);
  const notes = [];
  const novel = answer.familiarity?.[0];
  if (novel?.far) {
    const nearest = `The nearest one is “${nameOf(novel.nearest)}”.`;
    notes.push(
      element("p.note", `These words are far from every learned relation, so results may be poor. ${nearest}`),
    );
  }
  if (!results.length)
    notes.push(element("p.waiting", "No results: the catalogue has no other item that can be compared in this way."));
  listOf(side).replaceChildren(...notes, list);
}

function row(side, result, depth, answer, explain) {
  const { item } = result;
  const figures = element(
    "span.figures",
    element("span.probability"),
    element("small.cosine", cosine(result.score), element("span.wide", " cosine")),
  );
  const moved = depth
    ? [element("span", { "aria-hidden": "true" }, movementText(result, side, depth)), spoken(movementInWords(result))]
    : [];
  const under = answer.relation === null ? element("small.under", `under ${nameOf(result.relation)}`) : null;
  const made = element(
    "button.result",
    { type: "button", "data-item": item.item_id },
    element("span.rank", String(result.rank)),
    picture(item),
    element("span.what", element("b", item.title), under, element(`small.moved.${movementClass(result)}`, ...moved)),
    figures,
  );
  made.onclick = () => explain(side, result);
  made.onmouseenter = made.onfocus = () => highlight(item.item_id);
  made.onmouseleave = made.onblur = () => highlight(null);
  return element("li", made);
}

/** Make a text that only screen readers read. */
const spoken = (text) => element("span.spoken", text);

function movementClass(result) {
  if (result.there === null || result.there > SHOWN) return "apart";
  return result.there === result.rank ? "kept" : "joined";
}

/** Show the calibrated probabilities when they arrive. If the relation has none, the cosine is the main figure. */
async function showProbabilities(side, view, results, current) {
  const rows = [...listOf(side).querySelectorAll(".result")];
  if (!isCalibrated(view[side])) {
    rows.forEach((one) => one.querySelector(".figures").classList.add("uncalibrated"));
    return;
  }
  const item = askedItem(view.item);
  const questions = results.map((result) => ({ item_a: item, item_b: result.item.item_id, relation: result.relation }));
  if (!questions.length) return;
  const answer = await call("validity/batch", { body: { questions } }).catch(() => ({ replies: [] }));
  if (!current()) return;
  rows.forEach((one, number) => {
    const verdict = answer.replies[number]?.answer;
    if (!verdict) {
      one.querySelector(".figures").classList.add("uncalibrated");
      return;
    }
    one.classList.toggle("unlikely", !verdict.valid);
    one
      .querySelector(".probability")
      .replaceChildren(spoken("probability "), percent(verdict.probability), bar(verdict.probability));
  });
}

/** Draw a line between the two places of each result that both sides show. */
export function drawLines() {
  const lines = $("lines");
  if (!shown || !lines.offsetParent) return;
  const { width, height, top } = lines.getBoundingClientRect();
  const middle = (side, id) => {
    const box = [...$(side).querySelectorAll(".result")]
      .find((one) => one.dataset.item === id)
      ?.getBoundingClientRect();
    return box && box.top + box.height / 2 - top;
  };
  const paths = joined(shown.moved).map(({ item }) => {
    const [from, to] = [middle("left", item.item_id), middle("right", item.item_id)];
    if (from === undefined || to === undefined) return null;
    return svg("path", {
      d: `M0 ${from} C${width / 2} ${from} ${width / 2} ${to} ${width} ${to}`,
      "data-item": item.item_id,
    });
  });
  lines.replaceChildren(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...paths.filter(Boolean)));
}

function highlight(id) {
  for (const one of $("columns").querySelectorAll("[data-item]")) one.classList.toggle("lit", one.dataset.item === id);
  $("columns").classList.toggle(
    "focused",
    id !== null && joined(shown?.moved ?? { left: [] }).some(({ item }) => item.item_id === id),
  );
}

/** Show the item that is compared. */
export function showItem(item) {
  const name = item.title ?? (item.text ? `“${item.text}”` : "Your picture");
  const about = item.item_id
    ? [(item.categories ?? []).join(", "), item.item_id].filter(Boolean).join(" · ")
    : `New item, known by its ${[item.text && "words", item.preview && "picture"].filter(Boolean).join(" and ")}` +
      (isReproducible({ item }) ? "" : ". A link cannot contain the picture.");
  $("chosen").replaceChildren(
    picture(item),
    element("div", element("small", "What goes with"), element("h2", name), element("small", about)),
  );
}
