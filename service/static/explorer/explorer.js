// The explorer page: sends requests to the HTTP API like any other client and shows the responses.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { query: null, relation: null, relations: [], total: 0 };

// The key is stored until the tab is closed. A server without keys never requests one.
const KEY = "rcml-key";
const key = () => sessionStorage.getItem(KEY);
const withKey = (headers = {}) => key() ? { ...headers, Authorization: `Bearer ${key()}` } : headers;

let asking = null;  // promise of the next key, shared by all requests that are rejected while the dialog is open
function askForKey(detail) {
  asking ??= new Promise((resolve) => {
    $("key-says").textContent = detail;
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, new FormData(event.target).get("key").trim());
      event.target.reset();
      $("key").close();
      showWhetherKeyed();
      asking = null;
      resolve();
    };
    $("key").showModal();
  });
  return asking;
}

function showWhetherKeyed() {
  $("forget").hidden = !key();
}

async function call(path, body) {
  const sent = key();
  const response = await fetch(path, body
    ? { method: "POST", headers: withKey({ "Content-Type": "application/json" }), body: JSON.stringify(body) }
    : { headers: withKey() });
  const answer = await response.json();
  if (response.status === 401) {
    if (sent === key()) await askForKey(sent ? "The server rejected this API key." : "This server requires an API key.");
    return call(path, body);
  }
  if (!response.ok) throw Object.assign(new Error(answer.detail || answer.title), { status: response.status });
  return answer;
}

// Titles are untrusted, so they are set as text, never as markup.
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const relative = (path) => path.replace(/^.*\/(?=items\/)/, ""); // below this page, whatever the prefix of a proxy
const picture = (item) => item.image_url
  ? key() ? guardedPicture(relative(item.image_url)) : element("img", { src: relative(item.image_url), alt: "", loading: "lazy" })
  : element("div", { className: "unpictured", title: "no picture" }, "no picture");
// An <img> cannot send an API key, so the picture is fetched with the key and shown from memory.
function guardedPicture(path) {
  const shown = element("img", { alt: "" });
  shown.onload = () => URL.revokeObjectURL(shown.src);
  fetch(path, { headers: withKey() })
    .then((response) => response.ok ? response.blob() : Promise.reject(response.status))
    .then((bytes) => { shown.src = URL.createObjectURL(bytes); }, () => { shown.alt = "no picture"; });
  return shown;
}

const percent = (share) => `${Math.round(share * 100)}%`;

function showRelations() {
  const chips = state.relations.map((relation) => {
    const name = relation.relation_id.replaceAll("-", " ");
    const chip = element("button", { type: "button", className: "relation", title: relation.description },
      element("span", {}, name), element("small", {}, relation.description));
    chip.setAttribute("role", "radio");
    chip.setAttribute("aria-checked", String(relation.relation_id === state.relation));
    chip.onclick = () => { state.relation = relation.relation_id; showRelations(); ask(); };
    return chip;
  });
  $("relations").replaceChildren(...chips);
}

function showQuery() {
  if (state.query.text !== undefined) {
    $("query").replaceChildren(element("div", {}, element("b", {}, `“${state.query.text}”`),
      element("small", {}, "new item, described by this text only")));
    return;
  }
  const item = state.query;
  $("query").replaceChildren(picture(item), element("div", {}, element("b", {}, item.title),
    element("small", {}, [item.categories.join(", "), item.item_id].filter(Boolean).join(" · "))));
}

let asked = 0;
async function ask() {
  showQuery();
  const mine = ++asked;
  const text = state.query.text;
  const similarity = $("similarity").value;
  const body = { relation: state.relation, k: 12 };
  if (text === undefined) Object.assign(body, { item_id: state.query.item_id, similarity });
  else Object.assign(body, { text, similarity: similarity.startsWith("T") ? similarity : "TT" });
  try {
    const answer = await call("retrieve", body);
    if (mine === asked) showAnswer(answer);
  } catch (error) {
    if (mine === asked) complain(error);
  }
}

function showAnswer(answer) {
  $("says").replaceChildren(
    element("span", {}, answer.relation.description), " ",
    element("small", {}, `${answer.similarity}, ${answer.how}, ${answer.took_ms.toFixed(1)} ms`));
  $("results").replaceChildren(...answer.results.map((result) => {
    const pick = element("button", { type: "button", className: "pick", title: "Use this item as the query" },
      picture(result.item), element("b", {}, result.item.title));
    pick.onclick = () => { state.query = result.item; ask(); scrollTo({ top: 0, behavior: "smooth" }); };
    const foot = element("div", { className: "foot" }, element("span", { className: "soft", title: "cosine similarity" },
      result.score.toFixed(3)));
    if (state.query.text === undefined) {
      const why = element("button", { type: "button" }, "Why?");
      why.onclick = () => explain(answer, result.item);
      foot.append(why);
    }
    return element("li", {}, pick, foot);
  }));
}

async function explain(answer, item) {
  const pair = { item_a: answer.query.item_id, item_b: item.item_id };
  const between = state.relations.filter((relation) => !relation.intra);
  try {
    const verdicts = await Promise.all(
      between.map((relation) => call("validity", { ...pair, relation: relation.relation_id })));
    verdicts.sort((a, b) => b.probability - a.probability);
    const verdict = verdicts.find((one) => one.relation.relation_id === answer.relation.relation_id);
    const rows = verdicts.slice(0, 5).map((one) => element("tr", {},
      element("td", {}, one.relation.relation_id.replaceAll("-", " ")),
      element("td", {}, element("meter", { min: 0, max: 1, value: one.probability })),
      element("td", { className: "soft", align: "right" }, percent(one.probability))));
    const close = element("button", { type: "button" }, "Close");
    close.onclick = () => $("why").close();
    $("why").replaceChildren(
      element("div", { className: "pair" }, picture(answer.query), picture(item)),
      element("p", {}, verdict
        ? `${answer.query.title} and ${item.title}: “${verdict.relation.relation_id.replaceAll("-", " ")}” `
          + `${verdict.valid ? "holds" : "does not hold"} (probability ${percent(verdict.probability)}).`
        : answer.relation.relation_id
          ? `${answer.query.title} and ${item.title} look alike.`
          : `${answer.query.title} and ${item.title} match under “${answer.relation.description}”.`),
      element("small", {}, "Most likely relations between these items:"),
      element("table", {}, element("tbody", {}, ...rows)), close);
    $("why").showModal();
  } catch (error) {
    complain(error);
  }
}

function complain(error) {
  $("says").replaceChildren(element("span", { className: "problem" }, error.message));
  $("results").replaceChildren();
}

// Not every item has partners under every relation, so start with the relation that is most likely valid for the item.
async function present(item) {
  const between = state.relations.filter((relation) => !relation.intra);
  const chances = await Promise.all(between.map(async ({ relation_id: relation }) => {
    const { results } = await call("retrieve", { item_id: item.item_id, relation, k: 1 });
    if (!results.length) return { relation, probability: 0 };
    const pair = { item_a: item.item_id, item_b: results[0].item.item_id };
    const { probability } = await call("validity", { ...pair, relation });
    return { relation, probability };
  }));
  chances.sort((a, b) => b.probability - a.probability);
  state.query = item;
  state.relation = chances[0].relation;
  showRelations();
  await ask();
}

async function surprise() {
  try {
    const cursor = Math.floor(Math.random() * state.total);
    await present((await call(`items?limit=1&cursor=${cursor}`)).items[0]);
  } catch (error) {
    complain(error);
  }
}

async function start() {
  try {
    const known = await call("relations");
    state.relations = known.relations;
    $("own").hidden = !known.in_words;
    const page = await call("items?limit=1");
    state.total = page.total;
    await present(page.items[0]);
  } catch (error) {
    if (error.status === 503) { setTimeout(start, 500); return; }  // the index is still opening
    complain(error);
  }
}

$("similarity").onchange = ask;
$("forget").onclick = () => { sessionStorage.removeItem(KEY); location.reload(); };
$("key").oncancel = (event) => event.preventDefault();  // without a key the page cannot show anything
$("surprise").onclick = surprise;
$("words").onsubmit = (event) => {
  event.preventDefault();
  const text = new FormData(event.target).get("text").trim();
  if (text && state.relation) { state.query = { text }; ask(); }
};
$("own").onsubmit = (event) => {
  event.preventDefault();
  const description = new FormData(event.target).get("description").trim();
  if (description && state.query) { state.relation = { description }; showRelations(); ask(); }
};
showWhetherKeyed();
start();
