// The form that adds a relation in words.

import { call } from "./api.js";
import { element, problem } from "./elements.js";

/** Make the form. `added` runs when the server has accepted the relation, which it then indexes in the background. */
export function relationForm(added) {
  const name = element("input", {
    id: "relation-name",
    required: true,
    maxLength: 80,
    autocomplete: "off",
    placeholder: "One colour",
  });
  const words = element("input", {
    id: "relation-words",
    required: true,
    maxLength: 2000,
    autocomplete: "off",
    placeholder: "Chosen by people who want everything in one colour.",
  });
  const says = element("div", { "aria-live": "polite" });
  const fields = element(
    "div.fields",
    element("label", { htmlFor: name.id }, "Name", name),
    element("label", { htmlFor: words.id }, "What people who choose these items have in common", words),
    element("button.main", { type: "submit" }, "Add"),
  );
  const form = element("form.add.card", element("h3", "Add a relation in words"), fields, says);
  form.onsubmit = async (event) => {
    event.preventDefault();
    says.replaceChildren();
    const [title, description] = [name.value.trim(), words.value.trim()];
    try {
      await call("relations", { body: { relation_id: idOf(title), name: title, description } });
      form.reset();
      await added();
    } catch (error) {
      says.replaceChildren(problem(error));
    }
  };
  return form;
}

/** Make the ID of a relation from its name. Letters of all scripts stay, so that names in different ones differ. */
function idOf(name) {
  const words = name.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["relation"];
  return words.join("-");
}
