// The choice of what one side of the comparison shows: a relation, look-alikes, no relation, or own words.

import { element } from "./elements.js";
import { allRelations, betweenItems, meaningOf, relationOf } from "./relations.js";

const NONE = "none";
const WORDS = "words";

/** Make the head of a column. `changed` gets the new choice. `inWords` says whether own words are possible. */
export function relationChoice(side, choice, inWords, changed) {
  const select = element("select", { id: `${side}-relation`, "aria-describedby": `${side}-text` });
  const between = element("optgroup", { label: "Relations" }, ...betweenItems().map(relationOption));
  const others = element(
    "optgroup",
    { label: "For comparison" },
    ...allRelations()
      .filter((one) => one.intra)
      .map(relationOption),
    element("option", { value: NONE }, "No relation (each result under its best one)"),
  );
  select.append(between, others);
  if (inWords) others.append(element("option", { value: WORDS }, "Your own words …"));
  select.value = choice.words !== undefined ? WORDS : choice.none ? NONE : `id:${choice.relation}`;

  const text = element("p.text", { id: `${side}-text` });
  const input = element("input", {
    type: "text",
    maxLength: 2000,
    value: choice.words ?? "",
    autocomplete: "off",
    placeholder: "Chosen by people who want everything in one colour.",
    "aria-label": "The relation in your own words",
  });
  const form = element("form.own", input, element("button.main", { type: "submit" }, "Show"));
  form.onsubmit = (event) => {
    event.preventDefault();
    if (input.value.trim()) changed({ words: input.value.trim() });
  };
  const describe = () => {
    form.hidden = select.value !== WORDS;
    text.textContent = textOf(select.value);
  };
  select.onchange = () => {
    describe();
    if (select.value === WORDS) input.focus();
    else changed(select.value === NONE ? { none: true } : { relation: select.value.slice(3) });
  };
  describe();
  const label = element("label", { htmlFor: select.id }, side === "left" ? "Under" : "Compared with");
  return element("div.choice", label, select, text, form);
}

const relationOption = (relation) => element("option", { value: `id:${relation.relation_id}` }, relation.name);

function textOf(value) {
  if (value === WORDS) return "Describe what people who choose these items have in common.";
  if (value === NONE) return "Each result is ranked by the relation that suits it best.";
  return meaningOf(relationOf(value.slice(3)) ?? { description: "" });
}
