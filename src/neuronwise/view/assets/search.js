// Which neurons write a token.

const FEW = 5;
const { asked: token, live: hasModel, indexed } = told("search");

function hit({ neuron, score, raises, lowers }) {
  const line = (name, tokens) => make("span", { class: `line ${name}` }, make("span", { class: "end" }, name),
    ...tokens.slice(0, 8).map((one) => tokenElement(one)));
  return make("li", {}, make("a", { class: "address", href: neuronUrl(neuron) }, neuron),
    make("span", { class: "number" }, digits(Math.abs(score))), line("raises", raises), line("lowers", lowers));
}

/** By what an index saw: neurons that tell the photos and texts which name the word. */
async function firing() {
  part("firing").hidden = false;
  part("firing-note").textContent = "looking through the index …";
  const answer = await fetch(`/api/firing?word=${encodeURIComponent(token.trim())}`);
  const found = await answer.json();
  part("firing").hidden = !found.neurons;
  if (!answer.ok) throw new Error(found.message);
  if (!found.neurons) return;
  part("firing-note").textContent = `Over the ${found.items} photos and texts of “${found.index}”, ${found.named} of which name it: by the area under the ROC curve, .5 is chance.${found.named < FEW ? " That few say little." : ""}`;
  part("fires").append(...found.neurons.flatMap(({ neuron, score }) => [
    make("a", { class: "chip", href: neuronUrl(neuron), title: `area ${digits(score)}` }, `${neuron} ${score.toFixed(2).replace(/^0/, "")}`), " "]));
}

/** By labels in words, where neuronwise explain wrote some. */
async function labels() {
  const answer = await fetch(`/api/labels?words=${encodeURIComponent(token.trim())}`);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.message);
  part("labelled").hidden = !found.labels.length;
  part("labels").append(...found.labels.map(labelled));
}

/** The neurons that a photo or a text fires, each by its own measure. */
async function firingOn(given) {
  problem(null);
  part("given-note").hidden = true;
  part("given-fires").replaceChildren();
  if (!given) return;
  const found = await ask("firing", given);
  part("given-note").hidden = false;
  part("given-note").textContent = `${given.photo ? `The model says “${found.text}”. ` : ""}How high each neuron goes above its mean, as a share of how high it is on its examples in “${found.index}”: 1 is as high as there.`;
  part("given-fires").append(...found.neurons.map(({ neuron, score, label }) => make("li", {}, make("a", { class: "address", href: neuronUrl(neuron) }, neuron),
    make("span", { class: "number" }, digits(score)), make("span", { dir: "auto" }, label))));
}

async function writing() {
  const found = await ask("search", { token });
  part("token").replaceChildren(tokenElement(found.token, "inline"));
  part("ends").hidden = false;
  for (const end of ["raises", "lowers"]) part(end).append(...found[end].map(hit));
}

let waiting = null;
if (indexed && hasModel) {
  part("by-photo").hidden = false;
  takeInput(part("given"), (given) => {
    clearTimeout(waiting);
    keep({ text: given?.text });
    waiting = setTimeout(() => firingOn(given).catch((error) => problem(error)), given?.photo ? 0 : 700);
  }, { text: kept("text") });
}
part("token").append(token.trim() ? tokenElement(token, "inline") : "a word");
if (token.trim()) {
  if (indexed) for (const look of [firing, labels]) look().catch((error) => problem(error));
  if (hasModel) writing().catch((error) => problem(error));
  if (!indexed && !hasModel) problem(new Error("Searching by a word needs a model or an index; start the viewer with --model, or open the folder of an index."));
}

addEventListener("keydown", (event) => {
  const links = [...document.querySelectorAll(".hits .address, .stars a")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest?.("input, textarea")) return;
  const next = links[links.indexOf(document.activeElement) + step];
  if (next) { event.preventDefault(); next.focus(); }
});
