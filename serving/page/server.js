// What the page asks of the server, and its refusals in plain words.
const ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes";
const TOP = 5;

const PLAIN = {
  unreadable_image: "This file is not a picture, or a broken one.",
  unsupported_image: "This kind of picture cannot be opened here.",
  unsupported_content_type: "This is not a picture.",
  image_too_large: "This picture has too many pixels.",
  payload_too_large: "This file is too large.",
  overloaded: "The server is busy just now.",
  deadline_passed: "The server was too busy to answer in time.",
  request_timeout: "The picture took too long to arrive.",
  not_explainable: "This model cannot show which places mattered.",
};

export class Refusal extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

/** { predictions, timing: {decode, infer, total} in milliseconds } of one file. Throws Refusal. */
export async function predict(file) {
  const started = performance.now();
  const response = await post(file, { Accept: "application/json", [ATTRIBUTES]: `top=${TOP}` });
  const { predictions } = await response.json();
  const timing = Object.fromEntries(
    (response.headers.get("Server-Timing") ?? "").split(", ").map((stage) => stage.split(";dur=")),
  );
  return { predictions, timing: { ...timing, total: performance.now() - started } };
}

/** The heat map over the picture, as a Blob. Throws Refusal. */
export async function explain(file) {
  return (await post(file, { Accept: "image/png" })).blob();
}

/** The model card, or null where there is no answer. */
export async function readCard() {
  const response = await ask("model.json");
  return response?.ok ? response.json() : null;
}

/** "ready", a word of /ping such as "loading", or "" where nothing answers. */
export async function readStatus() {
  const response = await ask("ping");
  if (!response) return "";
  return response.ok ? "ready" : (await response.json()).status;
}

async function ask(path) {
  try {
    return await fetch(path, { cache: "no-store" });
  } catch {
    return null;
  }
}

async function post(file, headers) {
  let response;
  try {
    response = await fetch("invocations", {
      method: "POST",
      headers: { "Content-Type": "application/x-image", ...headers },
      body: file,
    });
  } catch {
    throw new Refusal("The server does not answer.", "It may be restarting. Try again when it is ready.");
  }
  if (!response.ok) throw await readRefusal(response);
  return response;
}

async function readRefusal(response) {
  try {
    const { error } = await response.json();
    return new Refusal(PLAIN[error.code] ?? error.message, `${error.message} ${error.hint}`);
  } catch {
    return new Refusal("The server failed.", `It answered ${response.status}.`);
  }
}
