// Why two items match: the verdict on the relation, what the network looked at, and all relations between the two.

import { call } from "./api.js";
import { attentionView } from "./attention_view.js";
import { $, bar, button, cosine, dialogHead, element, percent, problem } from "./elements.js";
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
  const body = element("div", { "aria-live": "polite" }, element("div.skeleton.tall"));
  const goOn = () => {
    dialog.close();
    follow();
  };
  dialog.replaceChildren(
    dialogHead(dialog, "Why these two?", `Under ${name}`),
    body,
    element("div.dialog-foot", button(`Compare results for ${b.title}`, goOn, ".main")),
  );
  dialog.onclose = closed ?? null;
  if (!dialog.open) dialog.showModal();
  const pair = { item_a: askedItem(a), item_b: askedItem(b) };
  try {
    const [attention, types, verdict] = await Promise.all([
      call("explain", { body: { ...pair, relation } }),
      call("relation-type", { body: pair }),
      judged ? call("validity", { body: { ...pair, relation } }) : null,
    ]);
    body.replaceChildren(
      verdictView(verdict, attention, name),
      itemsView(a, b, attention),
      typesView(types, relation),
      viewsView(attention),
    );
  } catch (error) {
    body.replaceChildren(problem(error, () => explainPair({ a, b, relation, judged, follow, closed })));
  }
}

function verdictView(verdict, attention, name) {
  const similarity = element("small", `Cosine similarity ${cosine(attention.score)}.`);
  if (!verdict) {
    const only = `For ${name} there is only the similarity: probabilities are calibrated for indexed relations.`;
    return element("section.verdict", element("p", only), similarity);
  }
  const says = element(
    "p",
    element("b.big", percent(verdict.probability)),
    ` probability that “${name}” links these items. `,
    element("b", verdict.valid ? "It counts as valid" : "It does not count as valid"),
    `, because the threshold is ${percent(verdict.threshold)}.`,
  );
  const tone = verdict.valid ? "holds" : "fails";
  return element(`section.verdict.${tone}`, says, bar(verdict.probability, verdict.threshold), similarity);
}

function itemsView(a, b, attention) {
  const legend = "Stronger colour means more attention under this relation, among words or among parts of the picture.";
  return element(
    "section",
    element("h3", "What the network looked at"),
    element("div.pair", attentionView(a, attention.item_a), attentionView(b, attention.item_b)),
    element("p.soft", legend),
  );
}

function typesView(types, relation) {
  const column = (text) => element("th", { scope: "col" }, text);
  const head = element("tr", column("Relation"), element("td"), column("Probability"), column("Cosine"));
  const rows = types.relations.map((one) =>
    element(
      one.relation.relation_id === relation ? "tr.this" : "tr",
      element("th", { scope: "row" }, one.relation.name),
      element("td.wide-cell", bar(one.probability)),
      element("td", percent(one.probability)),
      element("td.soft", cosine(one.score)),
    ),
  );
  const note = "These calibrated probabilities add up to 100%: they say which relation it is, if it is one of them.";
  return element(
    "section",
    element("h3", "Which relation links them most likely?"),
    element("table.types", element("thead", head), element("tbody", ...rows)),
    element("p.soft", note),
  );
}

function viewsView(attention) {
  const facts = Object.entries(VIEWS)
    .filter(([view]) => attention.cosines[view] !== null)
    .map(([view, text]) => element("div", element("dt", text), element("dd", cosine(attention.cosines[view]))));
  return element("section", element("h3", "Cosine by what is compared"), element("dl.facts", ...facts));
}
