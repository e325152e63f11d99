// An edit: what was asked, its verdict, what it changed in words; applied and taken out again.

const edit = told("edit");
const { record } = edit;

function drawRecord() {
  part("title").textContent = edit.title;
  const layers = [...new Set(edit.deltas.map(({ layer }) => layer))];
  part("about").textContent = `${record.method ?? "edit"} · made for ${record.model ?? "an unnamed model"} · ${layers.length === 1 ? "layer" : "layers"} ${layers.join(", ")}`;
  for (const [name, value] of Object.entries(record)) {
    if (value === null || ["verdict", "method", "model"].includes(name)) continue;
    part("made").append(make("dt", {}, name), make("dd", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value)));
  }
}

function drawVerdict() {
  const { verdict } = record;
  if (!verdict || verdict.error) return;
  part("verdict").hidden = false;
  part("verdict-line").append(make("b", { class: verdict.holds ? "good" : "bad" }, verdict.holds ? "It holds" : "It does not hold"),
    verdict.hurts ? make("b", { class: "bad" }, ", and hurts the model") : ", and the model writes other things as before",
    `: perplexity of a neutral text ${digits(verdict.perplexity_before)} → ${digits(verdict.perplexity)}${verdict.same == null ? "" : `; ${verdict.same} of ${verdict.openings.length} openings go on as before`}.`);
  const head = make("tr", {}, ...["prompt", "target", "p", "rank", "says"].map((name) => make("th", { scope: "col" }, name)));
  const plain = (value) => (value == null ? "–" : typeof value === "number" && !Number.isInteger(value) ? digits(value) : String(value));
  const from = (before, after) => `${plain(before)} → ${plain(after)}`;
  part("targets").append(make("thead", {}, head), make("tbody", {}, ...verdict.targets.map((row) => make("tr", {},
    make("th", { scope: "row", dir: "auto" }, row.prompt ?? "–"), make("td", {}, row.target), make("td", {}, from(row.p_before, row.p)),
    make("td", {}, from(row.rank_before, row.rank)), make("td", {}, from(row.says_before, row.says))))));
}

function drawChanges(changes) {
  part("changes").hidden = !Object.keys(changes).length;
  const line = (name, tokens, known) => make("span", { class: "line" }, make("span", { class: "end" }, name),
    ...tokens.map((token) => tokenElement(token, known && !known.includes(token) ? "chip new" : "chip")));
  part("changed").replaceChildren(...Object.entries(changes).map(([name, { size, before, after }]) => make("li", {},
    make("a", { class: "address", href: neuronUrl(name) }, name), make("span", { class: "number" }, `changed by ${digits(size)}`),
    line("raised", before[0]), line("raises", after[0], before[0]), line("lowered", before[1]), line("lowers", after[1], before[1]))));
}

function drawState({ applied, edits }) {
  part("state-of").hidden = false;
  part("state").textContent = applied ? "The viewer's model carries this edit." : edits ? `The model carries ${edits} other ${edits === 1 ? "edit" : "edits"}.` : "The model is as published.";
  part("apply").hidden = applied;
  part("revert").hidden = !applied;
}

async function change(name) {
  problem(null);
  try {
    drawState(await ask(`edit/${name}`, { item: edit.id }));
  } catch (error) {
    problem(error);
  }
}

drawRecord();
drawVerdict();
for (const name of ["apply", "revert"]) part(name).addEventListener("click", () => change(name));
if (edit.live) {
  ask("edit/state", { item: edit.id }).then((found) => { drawState(found); drawChanges(found.changes); })
    .catch((error) => { part("state-of").hidden = false; problem(error); });
}
