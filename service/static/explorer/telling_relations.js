// Which two relations to show first for an item: likely ones, whose results differ.

import { call } from "./api.js";
import { SHOWN } from "./movement.js";
import { betweenItems } from "./relations.js";

const TRIED = 30; // relations that are tried, in the order of the index

/**
 * Choose a first relation and another one for an item. `first` is given if the user has chosen it.
 *
 * The first is the one whose best result is most probably valid, because not every item has partners under every
 * relation. The other is a valid one with the fewest results in common, but with at least one if possible.
 */
export async function telling(item, given) {
  const relations = betweenItems()
    .slice(0, TRIED)
    .map((relation) => relation.relation_id);
  const others = relations.filter((relation) => relation !== given?.relation);
  const plain = given
    ? { first: given, other: choice(others[0]) }
    : { first: choice(others[0]), other: choice(others[1]) };
  if (!item.item_id || others.length < 2) return plain;
  try {
    const found = await bestResults(item, [...new Set([...(given?.relation ? [given.relation] : []), ...others])]);
    const likely = others.toSorted((a, b) => found.get(b).probability - found.get(a).probability);
    const first = given ?? choice(likely[0]);
    const shown = new Set(found.get(first.relation)?.items);
    const rest = likely.filter((relation) => relation !== first.relation);
    const valid = rest.filter((relation) => found.get(relation).valid);
    const common = (relation) => found.get(relation).items.filter((id) => shown.has(id)).length || SHOWN;
    const [other] = (valid.length ? valid : rest.slice(0, 1)).toSorted((a, b) => common(a) - common(b));
    return { first, other: choice(other) };
  } catch {
    return plain; // the comparison itself will report what is wrong
  }
}

const choice = (relation) => (relation ? { relation } : { none: true });

/** Return the IDs of the results under each relation, and the probability and validity of the first. */
async function bestResults(item, relations) {
  const questions = relations.map((relation) => ({ item_id: item.item_id, relation, k: SHOWN, fields: ["item_id"] }));
  const { replies } = await call("retrieve/batch", { body: { questions } });
  const found = new Map(
    relations.map((relation, number) => [
      relation,
      {
        items: (replies[number].answer?.results ?? []).map((result) => result.item.item_id),
        probability: 0,
        valid: false,
      },
    ]),
  );
  const claims = relations
    .filter((relation) => found.get(relation).items.length)
    .map((relation) => ({ item_a: item.item_id, item_b: found.get(relation).items[0], relation }));
  const verdicts = await call("validity/batch", { body: { questions: claims } });
  claims.forEach(({ relation }, number) => Object.assign(found.get(relation), verdicts.replies[number].answer ?? {}));
  return found;
}
