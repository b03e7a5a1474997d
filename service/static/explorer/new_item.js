// A new item, from words, a picture, or both. A picture can be chosen, dropped or pasted anywhere on the page.

import { $, button, dialogHead, element } from "./elements.js";

const SIDE = 320; // pixels of the longer side; the towers read fewer
const KINDS = "image/jpeg,image/png,image/webp,image/avif,image/gif";

let use = () => {};

/** Set up the ways to give a new item. `used` gets {text, base64, preview}. */
export function setUpNewItem(used) {
  use = used;
  $("new-item").onclick = () => openNewItem({});
  document.addEventListener("paste", (event) => takeFile(event, event.clipboardData));
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => takeFile(event, event.dataTransfer));
}

function takeFile(event, data) {
  const [file] = data.files;
  if (!file) return; // text is pasted as usual
  event.preventDefault(); // a browser would leave the page to show the file
  if (!document.querySelector("dialog[open]:not(#describe)")) openNewItem({ file });
}

/** Open the dialog, with a picture file if one was dropped or pasted. */
function openNewItem({ file }) {
  const dialog = $("describe");
  if (!dialog.open) build(dialog);
  if (!dialog.open) dialog.showModal();
  if (file) showPicture(dialog, file);
}

function build(dialog) {
  const file = element("input", { type: "file", accept: KINDS, id: "picture-file" });
  const zone = element(
    "label.drop",
    { htmlFor: "picture-file" },
    element("span.preview"),
    element("span", element("b", "Choose a picture"), element("small", "or drop or paste one here")),
    file,
  );
  const words = element("textarea", {
    id: "new-words",
    maxLength: 2000,
    placeholder: "Navy striped helmet with a moon. Cycling",
  });
  const says = element("p.says", { role: "alert" });
  const form = element(
    "form",
    zone,
    element("label", { htmlFor: "new-words" }, "Words: a title, and a category if you know it"),
    words,
    says,
    element(
      "div.dialog-foot",
      button("Cancel", () => dialog.close()),
      element("button.main", { type: "submit" }, "Show related items"),
    ),
  );
  file.onchange = () => {
    if (file.files[0]) showPicture(dialog, file.files[0]);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = words.value.trim();
    if (!text && !dialog.picture) {
      says.textContent = "Give a picture, words, or both.";
      return;
    }
    dialog.close();
    use({ ...(text && { text }), ...dialog.picture });
  };
  dialog.picture = null;
  dialog.replaceChildren(
    dialogHead(dialog, "New item", "The item need not be in the catalogue. It is not stored."),
    form,
  );
}

async function showPicture(dialog, file) {
  const says = dialog.querySelector(".says");
  try {
    dialog.picture = await readPicture(file);
    dialog
      .querySelector(".preview")
      .replaceChildren(element("img.picture", { src: dialog.picture.preview, alt: "Preview of your picture" }));
    dialog.querySelector(".drop b").textContent = "Choose another picture";
    says.textContent = "";
  } catch {
    says.textContent = `${file.name || "The file"} cannot be read as a picture. Use a JPEG, PNG or WebP file.`;
  }
}

/** Scale a picture down, so that it is sent in a moment, and return it for the API and for the page. */
async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const drawing = canvas.getContext("2d");
  drawing.fillStyle = "#fff"; // where the picture is transparent, as in a shop
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  const base64 = canvas.toDataURL("image/jpeg", 0.92).split(",")[1];
  return { base64, preview: URL.createObjectURL(blob) };
}
