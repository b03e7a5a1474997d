// The relations of the index: their names, and what can be chosen to see results under.

import { call } from "./api.js";

let known = [];

/** Load the relations of the index; return the whole answer of GET /relations. */
export async function loadRelations() {
  const answer = await call("relations");
  known = answer.relations;
  return answer;
}

export const allRelations = () => known;
export const betweenItems = () => known.filter((relation) => !relation.intra);
export const relationOf = (id) => known.find((relation) => relation.relation_id === id);
export const nameOf = (id) => relationOf(id)?.name ?? id;

/** Return what a relation means, for people: the network's own sentence for look-alikes says nothing to them. */
export const meaningOf = (relation) =>
  relation.intra
    ? "Finds the items that look and read most like this one, such as its variants."
    : relation.description;

/** Return the name of a choice: a relation, own words, or no relation. */
export function choiceName(choice) {
  if (choice.words) return `“${choice.words}”`;
  return choice.none ? "No relation" : nameOf(choice.relation);
}

/** Return the relation of a choice as the API takes it; undefined if there is none. */
export const askedRelation = (choice) => (choice.words ? { description: choice.words } : choice.relation);

/** Return whether the API knows the probability that the relation of this choice holds for a pair. */
export const isCalibrated = (choice) =>
  Boolean(choice.none || (choice.relation && !relationOf(choice.relation)?.intra));

/** Return an item as the API takes it in a question about pairs. */
export const askedItem = (item) =>
  item.item_id ?? { ...(item.text && { text: item.text }), ...(item.base64 && { picture: { base64: item.base64 } }) };
