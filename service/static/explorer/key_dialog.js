// The dialog that asks for an API key, and the button that forgets it.

import { forgetKey, hasKey, onMissingKey, storeKey } from "./api.js";
import { $ } from "./elements.js";

let asking = null; // all requests that are rejected meanwhile wait for the same key

/** Ask for a key whenever the server rejects a request without a valid one. */
export function setUpKey() {
  onMissingKey((says) => (asking ??= ask(says)));
  $("key").oncancel = (event) => event.preventDefault(); // without a key the page cannot show anything
  $("forget").hidden = !hasKey();
  $("forget").onclick = () => {
    forgetKey();
    location.reload();
  };
}

function ask(says) {
  return new Promise((resolve) => {
    $("key-says").textContent = says;
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      storeKey(new FormData(event.target).get("key").trim());
      event.target.reset();
      $("key").close();
      $("forget").hidden = false;
      asking = null;
      resolve();
    };
    $("key").showModal();
  });
}
