// Ask the server from Node 18 or later; in a browser the body is the File itself.
import { readFile } from "node:fs/promises";

const answer = await fetch("http://127.0.0.1:8080/invocations", {
  method: "POST",
  headers: { "Content-Type": "application/x-image", Accept: "application/json; top=5" },
  body: await readFile("picture.jpg"),
});
const told = await answer.json();
if (!answer.ok) throw new Error(told.error.message);
for (const { label, probability } of told.predictions) {
  console.log(probability.toFixed(3), label);
}
