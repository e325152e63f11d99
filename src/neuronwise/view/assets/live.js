// The neuron in the model: what it raises, the slider, where it fires.

let given = null;
let givenUrl = null;
let asking = null; // ends the question before

async function decodeLive() {
  const { neurons, note } = await ask("decode", { neurons: [neuron.address] });
  drawEnds(neurons[neuron.address], POSITIVELY);
  if (note) indexNote(note);
}

const turn = { factor: Math.min(5, Math.max(-5, Number(kept("factor")) || 0)), mean: kept("mean") !== "" };
const linked = (name) => make("a", { href: neuronUrl(name) }, name);

async function askModel() {
  keep({ text: given?.text, factor: turn.factor, mean: turn.mean ? 1 : 0 }); // photos are forgotten with the viewer
  if (!given) return problem(new Error("Type a text or drop a photo first."));
  problem(null);
  asking?.abort();
  const own = (asking = new AbortController());
  const [list, asked] = [part("answers"), { ...turn }];
  list.replaceChildren();
  let before = null;
  const hear = (event) => {
    if (event.event !== "part" || own.signal.aborted) return;
    if (event.kind === "before") before = event.text;
    list.append(answerItem(event, asked, given.text, before, linked));
  };
  try {
    await ask("scale", { ...given, ...asked, neuron: neuron.address }, { hear, signal: own.signal });
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
  const name = `${neuron.address}-x${String(turn.factor).replace("-", "minus")}`;
  ask("make-edit", { neuron: neuron.address, factor: turn.factor, name })
    .then(({ href }) => { location.href = href; }).catch((error) => problem(error));
}

let waiting = null;
function later(work, milliseconds) {
  clearTimeout(waiting);
  waiting = setTimeout(work, milliseconds);
}

if (neuron.live) {
  part("live").hidden = false;
  const start = kept("text");
  part("knob").append(knob(turn, askModel).place);
  takeInput(part("given"), (now, url) => {
    [given, givenUrl] = [now, url];
    later(() => showFiring().catch((error) => problem(error)), now?.photo ? 0 : 700);
  }, { text: start });
  part("ask").addEventListener("click", askModel);
  part("edit").hidden = !neuron.writable;
  part("edit").addEventListener("click", makeEdit);
  part("writing").hidden = !neuron.index;
  part("look-alike").addEventListener("click", () => lookAlike().catch((error) => problem(error)));
  decodeLive().then(() => start && askModel()).catch((error) => {
    part("ends-note").textContent = "";
    problem(error, part("absent"));
  });
}
