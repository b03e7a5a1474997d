// How results differ between two rankings of the same catalogue: which are the same, and how far each one moved.

import { ordinal } from "./elements.js";

export const SHOWN = 10; // results shown of each ranking; further ones only tell where a result went

const positions = (ranking) => new Map(ranking.map((result, place) => [result.item.item_id, place + 1]));

/** Return each result of both sides that is shown, with its rank on the other side; null if it is not found there. */
export function movements(left, right) {
  const [inLeft, inRight] = [positions(left), positions(right)];
  const of = (ranking, other) =>
    ranking.slice(0, SHOWN).map((result, place) => ({
      ...result,
      rank: place + 1,
      there: other.get(result.item.item_id) ?? null,
    }));
  return { left: of(left, inRight), right: of(right, inLeft) };
}

/** Return the pairs of ranks that a line joins: results that both sides show. */
export const joined = ({ left }) => left.filter((result) => result.there !== null && result.there <= SHOWN);

/** Say where a result of one side is on the other side. */
export function movementText(result, side, depth) {
  if (result.there === null) return side === "left" ? `→ below ${ordinal(depth)}` : `from below ${ordinal(depth)}`;
  if (result.there === result.rank) return "same rank";
  if (side === "left") return `→ ${ordinal(result.there)}`;
  const up = result.there - result.rank;
  return `${up > 0 ? "▲" : "▼"} ${Math.abs(up)} from ${ordinal(result.there)}`;
}

/** Say the same in words, for a screen reader. */
export const movementInWords = ({ there }) =>
  there === null ? "not found on the other side" : `${ordinal(there)} on the other side`;

/** Summarise the difference in sentences. */
export function summary(moved, leftName, rightName) {
  const same = joined(moved);
  const shown = Math.max(moved.left.length, moved.right.length);
  if (!shown) return "No results to compare.";
  if (leftName === rightName) return "Both sides show the same relation. Choose another one on either side.";
  const furthest = [...same].sort((a, b) => Math.abs(b.there - b.rank) - Math.abs(a.there - a.rank))[0];
  const first = same.length
    ? `${same.length} of the ${shown} best results are the same under both.`
    : `None of the ${shown} best results is the same under both.`;
  if (!furthest) return `${first} What is related to this item depends on the relation.`;
  if (furthest.there === furthest.rank)
    return `${first} ${same.length === 1 ? "It keeps its rank" : "They keep their ranks"}.`;
  const way = `from ${ordinal(furthest.rank)} to ${ordinal(furthest.there)}`;
  return `${first} Of these, “${furthest.item.title}” moves furthest: ${way}.`;
}
