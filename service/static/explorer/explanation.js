// Why two items match: the verdict on the relation, what the network looked at, and all relations between the two.

import { call } from "./api.js";
import { attentionView } from "./attention_view.js";
import { $, bar, button, cosine, element, percent, problem } from "./elements.js";
import { askedItem, nameOf } from "./relations.js";

const VIEWS = { TT: "text, text", II: "picture, picture", TI: "text, picture", IT: "picture, text" };

/**
 * Open the explanation of a pair.
 *
 * `relation` is the ID or {description}, `judged` says whether its validity can be judged, `follow` is called to
 * compare results for `b` instead, and `closed` when the dialog closes.
 */
export async function explainPair({ a, b, relation, judged, follow, closed }) {
  const dialog = $("why");
  const name = relation.description ? `“${relation.description}”` : nameOf(relation);
  const body = element("div", { "aria-live": "polite" }, element("div", { className: "skeleton tall" }));
  const foot = element("div", { className: "dialog-foot" });
  if (follow) foot.append(button(`Compare results for ${b.title}`, () => { dialog.close(); follow(); }, { className: "main" }));
  const close = button("Close", () => dialog.close());
  dialog.replaceChildren(element("div", { className: "dialog-head" }, element("div", {},
    element("h2", { id: "why-title" }, "Why these two?"), element("p", { className: "soft" }, `Under ${name}`)), close), body, foot);
  dialog.onclose = closed ?? null;
  if (!dialog.open) dialog.showModal();
  const pair = { item_a: askedItem(a), item_b: askedItem(b) };
  try {
    const [attention, types, verdict] = await Promise.all([
      call("explain", { body: { ...pair, relation } }),
      call("relation-type", { body: pair }),
      judged ? call("validity", { body: { ...pair, relation } }) : null,
    ]);
    body.replaceChildren(verdictView(verdict, attention, name), itemsView(a, b, attention), typesView(types, relation), viewsView(attention));
  } catch (error) {
    body.replaceChildren(problem(error, () => explainPair({ a, b, relation, judged, follow, closed })));
  }
}

function verdictView(verdict, attention, name) {
  const similarity = element("small", {}, `Cosine similarity ${cosine(attention.score)}.`);
  if (!verdict) {
    return element("section", { className: "verdict" }, element("p", {}, `Probabilities are calibrated for relations between different items that the index knows. For ${name} there is only the similarity.`), similarity);
  }
  const tone = verdict.valid ? "holds" : "fails";
  return element("section", { className: `verdict ${tone}` },
    element("p", {}, element("b", { className: "big" }, percent(verdict.probability)), ` probability that “${name}” links these items. `,
      element("b", {}, verdict.valid ? "It counts as valid" : "It does not count as valid"), `, because the threshold is ${percent(verdict.threshold)}.`),
    bar(verdict.probability, { mark: verdict.threshold, className: "thick" }), similarity);
}

function itemsView(a, b, attention) {
  return element("section", {}, element("h3", {}, "What the network looked at"),
    element("div", { className: "pair" }, attentionView(a, attention.item_a), attentionView(b, attention.item_b)),
    element("p", { className: "soft" }, "Stronger colour means more attention under this relation. Words are compared with words, patches of a picture with patches."));
}

function typesView(types, relation) {
  const rows = types.relations.map((one) => element("tr", { className: one.relation.relation_id === relation ? "this" : "" },
    element("th", { scope: "row" }, one.relation.name), element("td", { className: "wide-cell" }, bar(one.probability)),
    element("td", {}, percent(one.probability)), element("td", { className: "soft" }, cosine(one.score))));
  const head = element("thead", {}, element("tr", {}, ...["Relation", "", "Probability", "Cosine"].map((text) =>
    text ? element("th", { scope: "col" }, text) : element("td"))));
  return element("section", {}, element("h3", {}, "Which relation links them most likely?"),
    element("table", { className: "types" }, head, element("tbody", {}, ...rows)),
    element("p", { className: "soft" }, "These calibrated probabilities add up to 100%: they say which relation it is, if it is one of them."));
}

function viewsView(attention) {
  const facts = Object.entries(VIEWS).filter(([view]) => attention.cosines[view] !== null)
    .map(([view, text]) => element("div", {}, element("dt", {}, text), element("dd", {}, cosine(attention.cosines[view]))));
  return element("section", {}, element("h3", {}, "Cosine by what is compared"), element("dl", { className: "facts" }, ...facts));
}
