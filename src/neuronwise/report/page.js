// The page: the words of the caption, the chosen one, and what the choice shows.

const finding = JSON.parse(document.getElementById("finding-json").textContent);
const heats = JSON.parse(document.getElementById("heat-json").textContent);
const photo = part("photo");
const state = { concept: 0, layer: null, pinned: null, pointed: null, everything: false, view: "evidence" };

// The fragment of each concept's address: its word, numbered where a word is asked for twice.
const fragments = finding.concepts.map(({ word }, index) => {
  const before = finding.concepts.slice(0, index).filter((other) => other.word === word).length;
  return "#" + encodeURIComponent(word.replace(/\p{Cs}/gu, "\ufffd")) + (before ? `~${before + 1}` : "");
});

const holders = new Map(); // address → indices of the concepts that list it
finding.concepts.forEach(({ neurons }, index) => neurons.forEach((neuron) => {
  holders.set(address(neuron), [...(holders.get(address(neuron)) ?? []), index]);
}));
const sharedBy = (neuron) => holders.get(address(neuron)).filter((index) => index !== state.concept)
  .map((index) => `“${finding.concepts[index].word}”`);

function wordLink(index, text) {
  const link = make("a", { class: "word", href: fragments[index], "data-concept": index }, text);
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    // Chosen here and not by the browser, which would scroll to the top of the page for the word "top".
    event.preventDefault();
    history.pushState(null, "", fragments[index]);
    choose(index);
  });
  return link;
}

/** The text with its concepts as links. Spans count characters as Python does: by code point, not UTF-16 unit. */
function captionNodes() {
  const characters = Array.from(finding.text);
  const spans = finding.concepts.flatMap((concept, index) =>
    (concept.occurrences ?? []).map(([start, end]) => ({ start, end, index })));
  spans.sort((a, b) => a.start - b.start || b.end - a.end);
  const nodes = [];
  let at = 0;
  for (const { start, end, index } of spans) {
    if (start < at || end <= start) continue; // "dog" inside "hot dog": the longer word has the letters
    nodes.push(characters.slice(at, start).join(""), wordLink(index, characters.slice(start, end).join("")));
    at = end;
  }
  return [...nodes, characters.slice(at).join("")];
}

const several = finding.photos ?? finding.texts;

function drawSaid() {
  const { prompt, text, concepts } = finding;
  part("model").textContent = finding.model;
  const caption = part("caption");
  if (several) {
    const count = Array.isArray(several) ? several.length : Object.keys(several).length;
    caption.append(plural(count, finding.texts ? "text" : "photo"), " together");
    part("gallery").hidden = !part("gallery").children.length;
  } else if (text) caption.append(...captionNodes());
  else if (!photo) caption.append(make("span", { class: "given" }, prompt));
  else caption.append(make("span", { class: "given" }, "The model generated nothing."));
  if (prompt && (photo || text)) part("asked").append("Asked ", make("q", { dir: "auto" }, prompt));
  caption.classList.toggle("long", caption.textContent.length > 180);
  const linked = new Set([...caption.querySelectorAll(".word")].map((link) => Number(link.dataset.concept)));
  const others = concepts.map((_, index) => index).filter((index) => !linked.has(index));
  if (!text && !photo && others.length === 1) {
    caption.append(/\s$/.test(prompt) ? "" : " ", wordLink(others[0], concepts[others[0]].word.trim()));
  } else if (others.length) {
    const links = others.flatMap((index) => [wordLink(index, concepts[index].word), " "]);
    part("others").append(several ? "Their words: " : "Also asked for: ", ...links);
    part("others").hidden = false;
  }
}

function choose(index) {
  Object.assign(state, { concept: index, layer: null, pinned: null, pointed: null, everything: false });
  for (const link of document.querySelectorAll(".word")) {
    if (Number(link.dataset.concept) === index) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  const concept = finding.concepts[index];
  part("word").textContent = concept.word.trim() || concept.word;
  const times = concept.occurrences?.length ?? 0;
  part("token").replaceChildren(
    "Scored at its token ", tokenElement(concept.token, "inline"), ` (id ${concept.token_id})`,
    concept.photos ? `, in ${plural(concept.photos.length, "photo")}` : finding.photos ? " in each photo"
      : concept.texts ? `, in ${plural(concept.texts.length, "text")}`
      : concept.position == null ? " where the prompt ends" : `, position ${concept.position} of the text, counted from 0`,
    times > 1 ? `; the text has the word ${times} times` : "");
  part("note").textContent = concept.note ?? "";
  part("note").hidden = !concept.note;
  const meaning = (finding.meaning ?? finding.method).split("{token}").flatMap((text, index) =>
    (index ? [tokenElement(concept.token, "inline"), text] : [text]));
  part("explained").replaceChildren(
    "Score: ", ...meaning, concept.neurons.some(({ raises }) => raises) && finding.form !== "logits"
      ? ". Below each neuron are the tokens that it raises and lowers here."
      : ". Below each neuron are the tokens that its value vector raises most; under a negative activation it lowers them.");
  draw();
  part("status").textContent = `${concept.word}: ${plural(concept.neurons.length, "neuron")}`;
}

function draw() {
  const concept = finding.concepts[state.concept];
  const counts = Array(Math.max(finding.num_layers, ...concept.neurons.map(({ layer }) => layer + 1))).fill(0);
  for (const { layer } of concept.neurons) counts[layer]++;
  drawLayers(counts, concept.neurons.length, state.layer, (layer) => {
    state.layer = layer;
    draw();
  });
  drawRows(concept, state, sharedBy);
  drawHeads(concept);
  drawLens(concept);
  drawSeen();
}

/** The map of what the chosen word depends on, in place of the neurons' heat; false where that is shown instead. */
function drawEvidence(concept, wanted) {
  const { evidence } = concept;
  part("views").hidden = !evidence || !heats[state.concept]?.mean;
  for (const button of part("views").children) {
    button.setAttribute("aria-pressed", wanted === null && button.dataset.view === state.view
      || wanted !== null && button.dataset.view === "heat");
  }
  if (!evidence || wanted !== null || (state.view === "heat" && heats[state.concept]?.mean)) return false;
  const map = evidenceMap(evidence);
  const meaning = evidence.meaning.split("{token}").flatMap((text, index) =>
    (index ? [tokenElement(concept.token, "inline"), text] : [text]));
  part("showing").replaceChildren("What ", make("b", {}, concept.word.trim()), " depends on, by ", evidence.by, ": ",
    ...meaning);
  part("showing").parentElement.hidden = part("heat").hidden = part("controls").hidden = false;
  part("unpin").hidden = true;
  part("heat-note").textContent = evidence.note ?? "";
  part("heat-note").hidden = !evidence.note;
  part("low").textContent = digits(map.mean.low);
  part("high").textContent = map.mean.high === map.mean.low ? "nothing speaks for it"
    : `${digits(map.mean.high)} ${evidence.unit}`;
  drawHeat(part("heat"), map, map.mean, part("opacity").value / 100, part("contour").checked, false);
  return true;
}

function drawSeen() {
  const concept = finding.concepts[state.concept];
  const wanted = state.pointed ?? state.pinned;
  pointLayer(wanted === null ? null : concept.neurons[wanted].layer);
  if (!photo || drawEvidence(concept, wanted)) return;
  const heat = heats[state.concept];
  const own = wanted === null ? undefined : heat?.neurons?.[wanted];
  const grid = own ?? heat?.mean;
  const name = wanted === null ? "" : address(concept.neurons[wanted]);
  part("heat").hidden = part("controls").hidden = !grid;
  part("heat-note").textContent = heat?.note ?? "";
  part("heat-note").hidden = !heat?.note;
  part("unpin").hidden = state.pinned === null || !grid;
  part("showing").parentElement.hidden = !grid;
  if (!grid) return;
  // Where a neuron helps the word by firing less than usual, the photo matters where it fires least.
  const downward = Boolean(own) && below(concept.neurons[wanted]);
  part("showing").replaceChildren(...(own ? ["Where ", make("b", {}, name), downward ? " fires least" : " fires"]
    : ["Where the neurons of ", make("b", {}, concept.word.trim()), " fire, on average: not what the word depends on",
      name && ` (${name} has no map of its own)`]));
  part("low").textContent = digits(downward ? grid.high : grid.low);
  part("high").textContent = grid.low === grid.high ? "the same everywhere" : digits(downward ? grid.low : grid.high);
  drawHeat(part("heat"), heat, grid, part("opacity").value / 100, part("contour").checked, downward);
}

let waiting = false; // a pointer runs over many rows in one frame: draw the last
function drawSoon() {
  if (!waiting) requestAnimationFrame(() => { waiting = false; drawSeen(); });
  waiting = true;
}

function drawMade() {
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const pairs = (object) => Object.entries(object ?? {}).map(([key, value]) => `${key} ${plain(value)}`).join(", ");
  const facts = {
    Model: finding.model,
    Prompt: finding.prompt,
    "Chat template": finding.chat ? "applied" : "not applied",
    Method: finding.method + (finding.source ? ` (${finding.source})` : ""),
    Options: pairs(finding.options) || "none",
    Activation: finding.activation === "gate" ? "gate: the activation function's output"
      : "ffn: the input of the output projection",
    "Neurons per word": finding.top,
    Layers: finding.num_layers,
    Seed: finding.seed,
    Versions: pairs(finding.versions),
    Command: finding.command,
  };
  if (finding.note) facts.Note = finding.note;
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined || value === "") continue;
    part("made").append(make("dt", {}, name), name === "Command" || name === "Prompt"
      ? make("dd", {}, make("code", { dir: "auto" }, plain(value))) : make("dd", {}, plain(value)));
  }
}

function listen() {
  const pin = (index) => {
    state.pinned = index === state.pinned ? null : index;
    for (const item of part("rows").children) {
      const pinned = Number(item.dataset.index) === state.pinned;
      item.classList.toggle("pinned", pinned);
      item.querySelector(".address").setAttribute("aria-pressed", pinned);
    }
    drawSoon();
  };
  listenToRows((index) => { state.pointed = index; drawSoon(); }, pin);
  for (const button of part("views").children) {
    button.addEventListener("click", () => {
      Object.assign(state, { view: button.dataset.view, pinned: null, pointed: null });
      draw();
    });
  }
  part("unpin").addEventListener("click", () => pin(state.pinned));
  part("all-layers").addEventListener("click", () => { state.layer = null; draw(); });
  part("more").addEventListener("click", () => {
    state.everything = true;
    draw();
    part("rows").querySelectorAll(".address")[AT_FIRST]?.focus();
  });
  for (const name of ["opacity", "contour"]) part(name).addEventListener("input", drawSoon);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    Object.assign(state, { pinned: null, layer: null });
    draw();
    state.pointed = null; // although the focus stays where it was
    drawSoon();
  });
  part("caption").addEventListener("keydown", (event) => {
    const links = [...part("caption").querySelectorAll(".word")];
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) links[links.indexOf(document.activeElement) + step]?.focus();
  });
  addEventListener("popstate", chooseFromAddress);
  addEventListener("lens", ({ detail: { concept, lens } }) => { // asked for in the viewer
    finding.concepts[concept].lens = lens;
    if (concept === state.concept) drawLens(finding.concepts[concept]);
  });
}

function download() {
  // The very text that was embedded: parsing it here would round large integers.
  const text = document.getElementById("finding-json").textContent;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: "finding.json" }).click();
  URL.revokeObjectURL(url);
}

function chooseFromAddress() {
  choose(Math.max(0, fragments.indexOf(location.hash)));
}

drawSaid();
drawMade();
part("download").addEventListener("click", download);
if (photo) {
  part("seen").hidden = false;
  part("stage").style.setProperty("--shape", photo.width / photo.height);
} else part("main").classList.add("text-only");
if (finding.concepts.length) {
  listen();
  chooseFromAddress();
} else part("found").replaceChildren(make("p", { class: "note" },
  several ? `The ${finding.texts ? "texts" : "captions"} share no word. Each ${finding.texts ? "text" : "photo"} has its own page.`
    : "No noun was found in the text. Ask for a word with --concept."));
