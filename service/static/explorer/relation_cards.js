// The relations of the index as cards, with those that are being indexed.

import { call } from "./api.js";
import { $, bar, button, count, element, percent, picture, plural, problem } from "./elements.js";
import { relationForm } from "./relation_form.js";
import { loadRelations, meaningOf } from "./relations.js";

const POLL_MS = 700;

const MEANING =
  "Each relation was learned from what people bought or chose together. It decides what “related” means. " +
  "The number below a pair is how many of its users have both items.";
const MEASURED =
  "Measured on items that training never saw: Hit@5 is the share of questions with a right answer among the first " +
  "five; AUC tells valid from invalid pairs (0.5 is chance, 1 is perfect); ECE is how far the probabilities are off " +
  "on average.";
const UNMEASURED = "The server was started without --report, so the quality of the relations is not shown.";
const NO_WORDS = "This index was built without --token-store, so no relation can be added in words.";

let actions = {};
let running = false; // whether a relation is being indexed
let timer = null;

/**
 * Show the page.
 *
 * `compare` gets a relation to see results under, `explain` a sample pair and its relation, and `changed` runs when
 * relations were added or removed.
 */
export async function showRelations(given) {
  actions = given;
  const page = $("relations");
  page.replaceChildren(element("p.waiting", "Loading the relations…"));
  try {
    const answer = await loadRelations();
    const measured = answer.relations.some((relation) => relation.quality);
    page.replaceChildren(
      element(
        "div.intro",
        element("h2", "Relations"),
        element("p", MEANING),
        element("p.soft", measured ? MEASURED : UNMEASURED),
      ),
      answer.in_words ? relationForm(added) : element("p.soft", NO_WORDS),
      element("div.cards", { id: "cards" }),
    );
    showCards(answer);
  } catch (error) {
    page.replaceChildren(problem(error, () => showRelations(given)));
  }
}

/** Show the relation that was just added while it is being indexed. */
async function added() {
  running = true;
  showCards(await loadRelations());
}

/** Show all cards, and again in a moment while a relation is being indexed. */
function showCards({ relations, pending }) {
  clearTimeout(timer);
  const focused = $("cards").contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : "";
  const order = (relation) => (relation.intra ? 2 : relation.origin === "added" ? 0 : 1);
  const sorted = relations.toSorted((a, b) => order(a) - order(b));
  $("cards").replaceChildren(...pending.map(pendingCard), ...sorted.map(card));
  if (focused)
    $("cards")
      .querySelector(`[aria-label="${CSS.escape(focused)}"]`)
      ?.focus();
  const before = running;
  running = pending.some((relation) => relation.state !== "failed");
  if (running) timer = setTimeout(poll, POLL_MS);
  else if (before) actions.changed();
}

async function poll() {
  if ($("relations").hidden) return;
  try {
    showCards(await loadRelations());
  } catch (error) {
    $("cards").prepend(problem(error, poll));
  }
}

function card(relation) {
  const added = relation.origin === "added";
  const origin = relation.intra ? "finds similar items" : added ? "added in words" : "learned";
  const foot = element(
    "div.foot",
    cardButton("See results", relation, () => actions.compare(relation)),
  );
  if (added) foot.append(cardButton("Remove", relation, (event) => remove(relation, event.target)));
  const unmeasured = "Added in words: it has no known pairs, so its quality is not measured.";
  return element(
    "article.card",
    { "data-relation": relation.relation_id },
    cardHead(relation, origin),
    element("p.text", meaningOf(relation)),
    factsView(relation),
    qualityView(relation.quality),
    samplesView(relation),
    added ? element("p.soft", unmeasured) : null,
    foot,
  );
}

const cardHead = (relation, tag) => element("div.card-head", element("h3", relation.name), element("small.tag", tag));

const cardButton = (text, relation, press) => button(text, press, "", { "aria-label": `${text}: ${relation.name}` });

function factsView(relation) {
  const facts = { users: relation.users, pairs: relation.pairs, "items in pairs": relation.paired_items };
  const known = Object.entries(facts).filter(([, number]) => number !== null);
  const views = known.map(([name, number]) => element("div", element("dt", name), element("dd", count(number))));
  return views.length ? element("dl.facts", ...views) : null;
}

function qualityView(quality) {
  if (!quality) return null;
  const figures = [
    ["Hit@5", quality.hit_at_5, percent],
    ["AUC", quality.validity_auc, (value) => value.toFixed(2)],
    ["ECE", quality.validity_ece, (value) => value.toFixed(3)],
  ].filter(([, value]) => value !== null);
  const views = figures.map(([name, value, written]) =>
    element("div", element("dt", name), element("dd", written(value), bar(value))),
  );
  const from = `From ${plural(quality.queries, "question")} and ${plural(quality.claims, "claim")}`;
  return views.length ? element("dl.quality", { title: from }, ...views) : null;
}

function samplesView(relation) {
  const views = relation.sample_pairs.map((pair) => {
    const titles = `${pair.item_a.title} and ${pair.item_b.title}`;
    const explain = () => actions.explain(pair, relation);
    const made = button("", explain, ".sample", { "aria-label": `Why ${titles}?`, title: titles });
    made.append(picture(pair.item_a), element("span", { "aria-hidden": "true" }, "+"), picture(pair.item_b));
    if (relation.users) made.append(element("small", plural(pair.support, "user")));
    return made;
  });
  return views.length ? element("div.samples", ...views) : null;
}

function pendingCard(relation) {
  const failed = relation.state === "failed";
  const share = relation.total ? relation.done / relation.total : 0;
  const progress = relation.state === "waiting" ? "Waiting to be indexed…" : `Indexing: ${percent(share)}`;
  return element(
    "article.card.pending",
    cardHead(relation, failed ? "failed" : "being added"),
    element("p.text", relation.description),
    failed ? null : element("progress", { max: 1, value: share, "aria-label": `Progress of ${relation.name}` }),
    element("p", { role: failed ? "alert" : "status" }, failed ? relation.reason : progress),
    element(
      "div.foot",
      cardButton(failed ? "Dismiss" : "Cancel", relation, (event) => remove(relation, event.target)),
    ),
  );
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
