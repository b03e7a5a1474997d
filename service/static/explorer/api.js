// Requests to the HTTP API, with an API key if the server requires one.

const KEY = "rcml-key"; // stored until the tab is closed; a server without keys never requests one

/** Problem that the API reported; `status` is 0 if the server could not be reached. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const storeKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

let askForKey = null;

/** Set the function that asks the user for a key: it gets a sentence and resolves once a key is stored. */
export const onMissingKey = (ask) => {
  askForKey = ask;
};

/** Send a request and return the parsed JSON, or throw an ApiError with the message of the server. */
export async function call(path, { method, body, signal } = {}) {
  const sent = sessionStorage.getItem(KEY);
  const response = await send(path, sent, {
    method: method ?? (body ? "POST" : "GET"),
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
    signal,
  });
  if (response.status === 401) {
    const unchanged = sent === sessionStorage.getItem(KEY);
    if (unchanged) await askForKey(sent ? "The server rejected this API key." : "This server requires an API key.");
    return call(path, { method, body, signal });
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new ApiError(answer.detail || answer.title || `The server answered ${response.status}.`, response.status);
  }
  return answer;
}

/** Fetch a picture with the API key, because an <img> cannot send one; return a URL of the bytes in memory. */
export async function pictureInMemory(path) {
  const response = await send(path, sessionStorage.getItem(KEY), {});
  if (!response.ok) throw new ApiError("The picture could not be loaded.", response.status);
  return URL.createObjectURL(await response.blob());
}

async function send(path, key, request) {
  const headers = key ? { ...request.headers, Authorization: `Bearer ${key}` } : request.headers;
  try {
    return await fetch(path, { ...request, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Check that it is running, then try again.", 0);
  }
}
