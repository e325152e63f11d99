// The neuron in the model: what it raises, the slider, where it fires.

let given = null;
let givenUrl = null;
let asking = null; // ends the question before

async function decodeLive() {
  const { neurons } = await ask("decode", { neurons: [neuron.address] });
  drawEnds(neurons[neuron.address], POSITIVELY);
}

const factor = () => Number(part("factor").value);
const times = (value) => String(value).replace("-", "−");

function sayFactor() {
  part("factor-said").textContent = times(factor());
  part("factor").disabled = part("mean").checked;
}

const WHAT = {
  before: () => ["as the model is"],
  changed: ({ neuron: name }) => [make("b", {}, name), part("mean").checked ? " set to its mean" : ` × ${times(factor())}`],
  random: ({ neuron: name }) => [make("a", { href: neuronUrl(name) }, name), ", a random neuron of this layer, likewise"],
};

/** The words of a text, those that the first answer lacks marked. */
function marked(text, before) {
  const known = new Set((before ?? text).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
  return text.split(/([\p{L}\p{N}]+)/u).map((piece, index) =>
    (index % 2 && !known.has(piece.toLowerCase()) ? make("mark", {}, piece) : piece));
}

/** How an answer compares with the one before: its words, and how likely the old words still are. */
const beside = ({ text, times: likely }, before) => [text === before ? "the same words" : "",
  likely == null ? "" : `the first answer is ${digits(likely)} times as likely as before`].filter(Boolean).join("; ");

/** The address leads back here: to this text and this turn of the slider. Photos are forgotten with the viewer. */
function keepAddress() {
  const kept = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries({ text: given?.text ?? "", factor: factor() || "", mean: part("mean").checked ? 1 : "" })) {
    if (value === "") kept.delete(name);
    else kept.set(name, value);
  }
  history.replaceState(null, "", kept.size ? `?${kept}` : location.pathname);
}

async function askModel() {
  keepAddress();
  if (!given) return problem(new Error("Type a text or drop a photo first."));
  problem(null);
  asking?.abort();
  const own = (asking = new AbortController());
  const list = part("answers");
  list.replaceChildren();
  let before = null;
  const hear = (event) => {
    if (event.event !== "part" || own.signal.aborted) return;
    if (event.kind === "before") before = event.text;
    list.append(make("li", { class: event.kind }, make("span", { class: "who" }, ...WHAT[event.kind](event)),
      make("p", { class: "answer", dir: "auto" }, ...(given.text ? [make("span", { class: "given" }, `${given.text} `)] : []),
        ...(event.text ? marked(event.text, before) : [make("span", { class: "given" }, "(nothing)")])),
      ...(event.kind === "before" ? [] : [make("span", { class: "same" }, beside(event, before))])));
  };
  try {
    await ask("scale", { ...given, neuron: neuron.address, factor: factor(), mean: part("mean").checked }, { hear, signal: own.signal });
  } catch (error) {
    problem(error);
  }
}

/** Tokens shaded by activation: warm above 0, cool below. */
function shaded(tokens, generated) {
  const most = Math.max(...tokens.map(({ value }) => Math.abs(value)), 1e-9);
  return tokens.map(({ text, value }, index) => {
    const piece = make("span", { class: `shade ${value < 0 ? "down" : "up"}${index >= generated ? " said" : ""}`,
      title: `${JSON.stringify(text)} ${digits(value)}` }, text);
    piece.style.setProperty("--share", `${Math.round((100 * Math.abs(value)) / most)}%`);
    return piece;
  });
}

async function showFiring() {
  const own = given;
  if (!own) { part("fires").hidden = true; return; }
  const found = await ask("fire", { ...own, neuron: neuron.address });
  if (own !== given) return;
  part("fires").hidden = false;
  part("shaded").replaceChildren(...shaded(found.tokens, found.generated));
  const values = found.tokens.map(({ value }) => value);
  part("fires-note").textContent = `In the text from ${digits(Math.min(...values))} to ${digits(Math.max(...values))}; the model's own words are underlined.${found.heat?.note ? ` ${found.heat.note}` : ""}`;
  part("stage").hidden = !found.heat?.mean;
  if (!found.heat?.mean) return;
  part("photo").src = givenUrl;
  await part("photo").decode();
  part("stage").style.setProperty("--shape", part("photo").naturalWidth / part("photo").naturalHeight);
  const { low, high } = found.heat.mean;
  const downward = Math.abs(low) > Math.abs(high);
  part("fires-note").append(` On the photo from ${digits(low)} to ${digits(high)}, brightest where it is ${downward ? "lowest" : "highest"}.`);
  drawHeat(part("heat"), found.heat, found.heat.mean, 0.8, false, downward);
}

async function lookAlike() {
  const { neurons } = await ask("alike", { item: neuron.index.id, neuron: neuron.address });
  part("writing-list").replaceChildren(...neurons.flatMap(({ neuron: name, score }) => [
    make("a", { class: "chip", href: neuronUrl(name), title: `cosine ${digits(score)}` }, name), " "]));
}

function makeEdit() {
  const name = `${neuron.address}-x${String(factor()).replace("-", "minus")}`;
  ask("make-edit", { neuron: neuron.address, factor: factor(), name })
    .then(({ href }) => { location.href = href; }).catch((error) => problem(error));
}

let waiting = null;
function later(work, milliseconds) {
  clearTimeout(waiting);
  waiting = setTimeout(work, milliseconds);
}

if (neuron.live) {
  part("live").hidden = false;
  const kept = new URLSearchParams(location.search);
  const start = kept.get("text") ?? "";
  part("factor").value = kept.get("factor") ?? 0;
  part("mean").checked = kept.has("mean");
  takeInput(part("given"), (now, url) => {
    [given, givenUrl] = [now, url];
    later(() => showFiring().catch((error) => problem(error)), now?.photo ? 0 : 700);
  }, { text: start });
  part("factor").addEventListener("input", sayFactor);
  part("factor").addEventListener("change", askModel);
  part("mean").addEventListener("change", () => { sayFactor(); askModel(); });
  part("ask").addEventListener("click", askModel);
  part("edit").hidden = !neuron.writable;
  part("edit").addEventListener("click", makeEdit);
  part("writing").hidden = !neuron.index;
  part("look-alike").addEventListener("click", () => lookAlike().catch((error) => problem(error)));
  sayFactor();
  decodeLive().then(() => start && askModel()).catch((error) => problem(error));
}
