// The try-it page: pictures in, labels out. Nothing is fetched but from this server.
import { Refusal, explain, predict, readCard, readStatus } from "./server.js";
import { snippets } from "./snippets.js";

const AT_ONCE = 2; // requests on their way; the server has a core or two
const POLL_MS = 3000;
const $ = (id) => document.getElementById(id);

const waiting = []; // answers whose turn has not come
const answers = []; // all that are shown
let running = 0;

// ---- pictures in

function take(files) {
  for (const file of files) {
    const answer = show(file);
    answers.push(answer);
    if (file.type && !file.type.startsWith("image/")) {
      refuse(answer, new Refusal("This is not a picture.", "Choose a JPEG, PNG or WebP file."), false);
    } else {
      waiting.push(answer);
    }
  }
  $("answers").hidden = answers.length === 0;
  work();
}

for (const id of ["files", "camera"]) {
  $(id).addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});

// ---- one picture's answer

function show(file) {
  const item = $("answer").content.cloneNode(true).querySelector("li");
  const image = item.querySelector("img");
  const answer = { file, item, image, url: URL.createObjectURL(file), heatUrl: "" };
  image.src = answer.url;
  image.alt = file.name;
  image.addEventListener("error", () => (image.hidden = true)); // what the browser cannot draw
  item.querySelector("figcaption").textContent = file.name;
  item.querySelector("caption").textContent = `Labels of ${file.name}`;
  item.querySelector("button").addEventListener("click", () => {
    item.querySelector(".error").hidden = true;
    item.querySelector(".waiting").hidden = false;
    waiting.push(answer);
    work();
  });
  $("list").append(item);
  return answer;
}

function tell(answer, { predictions, timing }) {
  const rows = predictions.map(({ label, probability }) => {
    const row = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row" });
    const share = Object.assign(document.createElement("div"), { className: "share" });
    share.style.width = `${100 * probability}%`;
    head.append(share, Object.assign(document.createElement("span"), { textContent: label }));
    const cell = Object.assign(document.createElement("td"), { textContent: percent(probability) });
    row.append(head, cell);
    return row;
  });
  answer.item.querySelector("tbody").replaceChildren(...rows);
  answer.item.querySelector("table").hidden = false;
  answer.item.querySelector(".waiting").hidden = true;
  const stages = ["decode", "infer"].filter((stage) => timing[stage]);
  const parts = stages.map((stage) => `${stage} ${milliseconds(timing[stage])}`);
  answer.item.querySelector(".timing").textContent = [...parts, `in all ${milliseconds(timing.total)}`].join(" · ");
}

function refuse(answer, refusal, mayRetry = true) {
  const error = answer.item.querySelector(".error");
  const [message, hint] = error.querySelectorAll("p");
  message.textContent = refusal.message;
  hint.textContent = refusal.hint ?? "";
  error.querySelector("button").hidden = !mayRetry;
  answer.item.querySelector(".waiting").hidden = true;
  error.hidden = false;
}

async function work() {
  report();
  while (running < AT_ONCE && waiting.length) {
    const answer = waiting.shift();
    running += 1;
    answerOne(answer).finally(() => {
      running -= 1;
      work();
    });
  }
}

async function answerOne(answer) {
  try {
    tell(answer, await predict(answer.file));
    answer.told = true;
    if ($("heat").checked) await heat(answer);
  } catch (error) {
    refuse(answer, error);
  }
}

function report() {
  const left = waiting.length + running;
  const done = answers.length - left;
  $("progress").textContent = left ? `${done} of ${answers.length} answered` : `${done} answered`;
}

// ---- heat maps

async function heat(answer) {
  if (!answer.heatUrl) answer.heatUrl = URL.createObjectURL(await explain(answer.file));
  if ($("heat").checked) {
    answer.image.src = answer.heatUrl;
    answer.image.alt = `${answer.file.name} with heat map`;
  }
}

$("heat").addEventListener("change", async () => {
  $("heat-note").hidden = !$("heat").checked;
  for (const answer of answers) {
    if (!$("heat").checked) {
      answer.image.src = answer.url;
      answer.image.alt = answer.file.name;
    } else if (answer.told) {
      await heat(answer).catch((error) => refuse(answer, error)); // one at a time: its queue is short
    }
  }
});

$("clear").addEventListener("click", () => {
  for (const { url, heatUrl } of answers.splice(0)) {
    URL.revokeObjectURL(url);
    if (heatUrl) URL.revokeObjectURL(heatUrl);
  }
  waiting.length = 0;
  $("list").replaceChildren();
  $("answers").hidden = true;
  $("files").focus();
});

// ---- the model and the server

function showCard(card) {
  const rows = [
    ["Architecture", card.architecture],
    ["Classes", card.labels.length],
    ...["valid", "test"].flatMap((split) => accuracy(card.metrics[split], split)),
    ["Precision", card.precision],
    ["Trained", card.created.replace("T", " ").replace("+00:00", " UTC")],
  ];
  const cells = rows.flatMap(([name, value]) => [element("dt", name), element("dd", value || "not recorded")]);
  $("card").replaceChildren(...cells);
  $("labels").hidden = false;
  $("labels").querySelector("summary").textContent = `All ${card.labels.length} labels`;
  $("labels").querySelector("p").textContent = card.labels.join(", ");
  $("heat-switch").hidden = !card.explanation;
}

function accuracy(metrics, split) {
  const found = metrics?.top1_accuracy;
  return found === undefined ? [] : [[`Right on ${split}`, percent(found)]];
}

async function watch() {
  const status = await readStatus();
  const words = { ready: "Ready", "": "The server does not answer", loading: "The model is loading" };
  $("status").textContent = words[status] ?? `Not ready: ${status}`;
  $("status").classList.toggle("down", status === "");
  if (status === "ready" && !watch.card) {
    watch.card = await readCard();
    if (watch.card) showCard(watch.card);
  }
  setTimeout(watch, POLL_MS);
}

// ---- programs

function choose(language) {
  $("code").textContent = snippets[language](new URL(".", location.href).href.replace(/\/$/, ""));
  for (const button of $("languages").children) {
    button.setAttribute("aria-pressed", String(button.textContent === language));
  }
  $("copied").textContent = "";
}

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("code").textContent);
    $("copied").textContent = "Copied.";
  } catch { // an address that is neither https nor localhost
    getSelection().selectAllChildren($("code"));
    $("copied").textContent = "Selected: copy it with Ctrl+C.";
  }
});

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function milliseconds(value) {
  return `${Number(value).toFixed(Number(value) < 10 ? 1 : 0)} ms`;
}

$("languages").append(
  ...Object.keys(snippets).map((language) => {
    const button = Object.assign(element("button", language), { type: "button" });
    button.addEventListener("click", () => choose(language));
    return button;
  }),
);
choose("curl");
watch();
