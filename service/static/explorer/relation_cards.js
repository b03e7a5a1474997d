// The relations of the index as cards, and a form to add one in words and watch it being indexed.

import { call } from "./api.js";
import { $, bar, button, count, element, percent, picture, plural, problem } from "./elements.js";
import { loadRelations, meaningOf } from "./relations.js";

const POLL_MS = 700;

let actions = {};
let polling = null;

/** Show the page. `compare` gets a relation to see results under, `explain` a sample pair, `changed` runs after changes. */
export async function showRelations(given) {
  actions = given;
  clearTimeout(polling);
  const page = $("relations");
  if (!page.firstChild) page.append(element("p", { className: "waiting" }, "Loading the relations…"));
  try {
    const answer = await loadRelations();
    page.replaceChildren(intro(answer), addForm(answer), element("div", { id: "cards", className: "cards" }));
    showCards(answer);
  } catch (error) {
    page.replaceChildren(problem(error, () => showRelations(given)));
  }
}

/** Stop asking for the progress, because the page is hidden. */
export const hideRelations = () => clearTimeout(polling);

function intro(answer) {
  const measured = answer.relations.some((relation) => relation.quality);
  const explain = measured
    ? "Measured on items that training never saw: Hit@5 is the share of questions with a right answer among the first five; AUC tells valid from invalid pairs (0.5 is chance, 1 is perfect); ECE is how far the probabilities are off on average."
    : "The server was started without a report, so the quality of the relations is not shown. Start it with --report.";
  return element("div", { className: "intro" }, element("h2", {}, "Relations"),
    element("p", {}, "Each relation was learned from what people bought or chose together. It decides what “related” means. The number below a pair is how many of its users have both items."),
    element("p", { className: "soft" }, explain));
}

function showCards(answer) {
  const between = answer.relations.filter((relation) => !relation.intra);
  const intra = answer.relations.filter((relation) => relation.intra);
  const added = between.filter((relation) => relation.origin === "added");
  const trained = between.filter((relation) => relation.origin !== "added");
  $("cards")?.replaceChildren(...answer.pending.map(pendingCard), ...[...added, ...trained, ...intra].map(card));
  const running = answer.pending.some((relation) => relation.state !== "failed");
  if (running) polling = setTimeout(poll, POLL_MS);
  else if (polling) { polling = null; actions.changed(); }
}

async function poll() {
  try {
    showCards(await loadRelations());
  } catch (error) {
    $("cards")?.prepend(problem(error, poll));
  }
}

function card(relation) {
  const facts = [["users", relation.users], ["pairs", relation.pairs], ["items in pairs", relation.paired_items]]
    .filter(([, number]) => number !== null && number !== undefined)
    .map(([name, number]) => element("div", {}, element("dt", {}, name), element("dd", {}, count(number))));
  const origin = relation.intra ? "finds similar items" : relation.origin === "added" ? "added in words" : "learned";
  const foot = element("div", { className: "foot" }, button("See results", () => actions.compare(relation), { "aria-label": `See results under ${relation.name}` }));
  if (relation.origin === "added") foot.append(button("Remove", (event) => remove(relation, event.target), { "aria-label": `Remove ${relation.name}` }));
  return element("article", { className: "card", "data-relation": relation.relation_id },
    element("div", { className: "card-head" }, element("h3", {}, relation.name), element("small", { className: "tag" }, origin)),
    element("p", { className: "text" }, meaningOf(relation)),
    facts.length ? element("dl", { className: "facts" }, ...facts) : null,
    qualityView(relation.quality), samplesView(relation),
    relation.origin === "added" ? element("p", { className: "soft" }, "Added in words: it has no known pairs, so its quality is not measured.") : null, foot);
}

function qualityView(quality) {
  if (!quality) return null;
  const figures = [
    ["Hit@5", quality.hit_at_5, quality.hit_at_5 === null ? null : percent(quality.hit_at_5)],
    ["AUC", quality.validity_auc, quality.validity_auc?.toFixed(2)],
    ["ECE", quality.validity_ece, quality.validity_ece?.toFixed(3)],
  ].filter(([, value]) => value !== null);
  if (!figures.length) return null;
  return element("dl", { className: "quality", title: `${plural(quality.queries, "question")} and ${plural(quality.claims, "claim")}` },
    ...figures.map(([name, value, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text, bar(value)))));
}

function samplesView(relation) {
  if (!relation.sample_pairs.length) return null;
  const pairs = relation.sample_pairs.map((pair) => {
    const titles = `${pair.item_a.title} and ${pair.item_b.title}`;
    const made = button("", () => actions.explain(pair, relation), { className: "sample", "aria-label": `Why ${titles}?`, title: titles });
    made.append(picture(pair.item_a), element("span", { "aria-hidden": "true" }, "+"), picture(pair.item_b));
    if (relation.users) made.append(element("small", {}, plural(pair.support, "user")));
    return made;
  });
  return element("div", { className: "samples" }, ...pairs);
}

function pendingCard(relation) {
  const failed = relation.state === "failed";
  const share = relation.total ? relation.done / relation.total : 0;
  const says = failed ? relation.reason : relation.state === "waiting" ? "Waiting to be indexed…" : `Indexing: ${percent(share)}`;
  return element("article", { className: "card pending" },
    element("div", { className: "card-head" }, element("h3", {}, relation.name), element("small", { className: "tag" }, failed ? "failed" : "being added")),
    element("p", { className: "text" }, relation.description),
    failed ? null : element("progress", { max: 1, value: share, "aria-label": `Progress of ${relation.name}` }),
    element("p", { role: failed ? "alert" : "status" }, says),
    element("div", { className: "foot" }, button(failed ? "Dismiss" : "Cancel", (event) => remove(relation, event.target))));
}

async function remove(relation, pressed) {
  pressed.disabled = true;
  try {
    await call(`relations/${encodeURIComponent(relation.relation_id)}`, { method: "DELETE" });
    showCards(await loadRelations());
    actions.changed();
  } catch (error) {
    pressed.closest(".card").append(problem(error));
    pressed.disabled = false;
  }
}

function addForm(answer) {
  if (!answer.in_words) return element("p", { className: "soft" }, "This index was built without --token-store, so no relation can be added in words.");
  const name = element("input", { name: "name", required: true, maxLength: 80, placeholder: "One colour", id: "relation-name", autocomplete: "off" });
  const words = element("input", { name: "words", required: true, maxLength: 2000, id: "relation-words", autocomplete: "off",
    placeholder: "Chosen by people who want everything in one colour." });
  const says = element("div", { "aria-live": "polite" });
  const form = element("form", { className: "add card" }, element("h3", {}, "Add a relation in words"),
    element("div", { className: "fields" },
      element("label", { htmlFor: name.id }, "Name", name), element("label", { htmlFor: words.id }, "What people who choose these items have in common", words),
      element("button", { type: "submit", className: "main" }, "Add")), says);
  form.onsubmit = async (event) => {
    event.preventDefault();
    says.replaceChildren();
    const [title, description] = [name.value.trim(), words.value.trim()];
    try {
      await call("relations", { body: { relation_id: idOf(title), name: title, description } });
      form.reset();
      clearTimeout(polling);
      polling = 1;
      showCards(await loadRelations());
    } catch (error) {
      says.replaceChildren(problem(error));
    }
  };
  return form;
}

/** Make the ID of a relation from its name, as rcml does for the relations that it learns. */
const idOf = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "relation";
