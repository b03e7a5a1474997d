// Attention of a relation over the words and the picture of an item, as POST /explain returns it.

import { element, percent, picture, svg } from "./elements.js";

/** Show one item of an explanation: its picture with the attention over it, and its words with theirs. */
export function attentionView(item, attention) {
  return element(
    "article.seen",
    pictureView(item, attention.image),
    element("h3", item.title ?? "New item"),
    wordsView(attention.text),
  );
}

function pictureView(item, image) {
  const frame = element("div.frame", picture(item));
  if (!image) return frame;
  const rows = image.grid.length;
  const most = Math.max(...image.grid.flat());
  const [width, height] = [image.right - image.left, image.bottom - image.top];
  const patches = image.grid.flatMap((row, y) =>
    row.map((weight, x) =>
      svg("rect", {
        x: image.left + (x * width) / row.length,
        y: image.top + (y * height) / rows,
        width: width / row.length,
        height: height / rows,
        "fill-opacity": most ? (0.75 * weight) / most : 0,
      }),
    ),
  );
  frame.append(
    svg("svg", { class: "heat", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...patches),
  );
  return frame;
}

function wordsView(text) {
  if (!text) return element("p.soft", "No words.");
  const total = text.words.reduce((sum, word) => sum + word.weight, 0) || 1;
  const most = Math.max(...text.words.map((word) => word.weight)) || 1;
  const letters = [...text.text]; // positions count code points
  const parts = [];
  let end = 0;
  for (const word of text.words) {
    parts.push(letters.slice(end, word.start).join(""));
    const mark = element("mark", { title: `${percent(word.weight / total)} of the attention on words` }, word.text);
    mark.style.setProperty("--weight", word.weight / most);
    parts.push(mark);
    end = word.end;
  }
  parts.push(letters.slice(end).join(""));
  const first = [...text.words]
    .filter((word) => /[\p{L}\p{N}]/u.test(word.text))
    .sort((a, b) => b.weight - a.weight)
    .slice(0, 2);
  const said = first.map((word) => `“${word.text}” ${percent(word.weight / total)}`).join(", ");
  return element(
    "div",
    element("p.words", ...parts),
    element("small", said ? `Most attention on words: ${said}.` : ""),
  );
}
