// What an index says of the neuron: its histogram, how often it fires, and on which photos and texts most.

const PLACE_NAMES = { predicting: "where the model predicts", image: "on the photo", text: "elsewhere in the text" };
const AT_FIRST = 12;
const shownOf = { place: null, end: "top", everything: false };

function bar(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.append(Object.assign(document.createElementNS("http://www.w3.org/2000/svg", "title"), { textContent: text }));
  return element;
}

/** Bars of equal width, although bins grow with the activation; heights by the logarithm of counts. */
function drawHistogram({ histogram }) {
  const { edges, threshold } = neuron.index;
  const most = Math.log1p(Math.max(...histogram));
  const width = 640 / histogram.length;
  part("histogram").replaceChildren(...histogram.flatMap((count, bin) => {
    const low = edges[bin - 1] ?? -Infinity, high = edges[bin] ?? Infinity;
    const height = count ? Math.max(2, (140 * Math.log1p(count)) / most) : 0;
    const fires = Math.min(Math.abs(low), Math.abs(high)) >= threshold;
    return [bar("rect", { x: bin * width + 0.6, y: 148 - height, width: width - 1.2, height, class: `${bin < 32 ? "below" : "above"}${fires ? "" : " faint"}` },
      `${count} from ${digits(low)} to ${digits(high)}`)];
  }));
  part("histogram").setAttribute("aria-label", "Histogram of its activations, on a logarithmic scale; strong bars count as firing");
  const place = (edge) => edges.reduce((best, one, index) => (Math.abs(one - edge) < Math.abs(edges[best] - edge) ? index : best), 0);
  part("marks").replaceChildren(...[-64, -4, -0.25, 0, 0.25, 4, 64].map((edge) => {
    const mark = make("span", {}, String(edge).replace("-", "−"));
    mark.style.left = `${(100 * (place(edge) + 1)) / histogram.length}%`;
    return mark;
  }));
}

function drawStats({ count, mean, std, frequency }) {
  const facts = { mean: digits(mean), "standard deviation": digits(std), fires: `${(100 * frequency).toFixed(frequency < 0.1 ? 1 : 0)} %`,
    positions: count.toLocaleString("en"), "photos and texts": neuron.index.items.toLocaleString("en") };
  part("stats").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  part("stats").title = `It fires where its activation is at least ${digits(neuron.index.threshold)} in size: about the median of the root mean squares of its layer's neurons.`;
}

function example(row) {
  const { value, kind, text, token, before, after, box, ratio } = row;
  const figures = make("span", { class: "number" }, digits(value));
  if (kind === "photo") {
    const frame = make("span", { class: "frame", "data-item": row.item }, photoOf(neuron.index, row));
    if (box) {
      const spot = make("i", { class: "spot" });
      [spot.style.left, spot.style.top] = [`${100 * box[0]}%`, `${100 * box[1]}%`];
      [spot.style.width, spot.style.height] = [`${100 * (box[2] - box[0])}%`, `${100 * (box[3] - box[1])}%`];
      frame.append(spot);
    }
    const said = token ? make("span", { class: "excerpt", dir: "auto" }, ...excerpt(before, token, after)) : make("span", { class: "excerpt", dir: "auto" }, text);
    return wide(make("li", { class: "photo" }, frame, make("span", { class: "beneath" }, figures, said)), ratio);
  }
  return make("li", { class: "text" }, figures, make("span", { class: "excerpt", dir: "auto" }, ...excerpt(before, token, after)));
}

/** Photos stand in rows of one height, as wide as they are. */
function wide(row, ratio) {
  row.style.setProperty("--ratio", ratio);
  return row;
}

const excerpt = (before, token, after) => [before.replace(/<[^<>]*>/g, " ").trimStart(), make("mark", {}, token), after];

function drawPlace() {
  history.replaceState(null, "", `#${[shownOf.place, shownOf.end, ...(part("heats").checked ? ["heat"] : [])].join("/")}`);
  const own = neuron.index.places[shownOf.place];
  for (const button of part("places-of").children) button.setAttribute("aria-pressed", button.dataset.place === shownOf.place);
  for (const button of part("signs").children) button.setAttribute("aria-pressed", button.dataset.end === shownOf.end);
  drawHistogram(own);
  drawStats(own);
  part("words").hidden = !own.words.length;
  part("words").replaceChildren("Where it fires most, the model said ", ...own.words.flatMap(([token, count]) => [tokenElement(token), count > 1 ? ` × ${count} ` : " "]));
  const list = own[shownOf.end];
  const first = shownOf.everything ? list : list.slice(0, AT_FIRST);
  part("examples").replaceChildren(...first.map(example));
  part("all").hidden = first.length === list.length;
  part("all").textContent = `Show all ${list.length}`;
  part("examples").classList.toggle("photos", list.some(({ kind }) => kind === "photo"));
  part("heating").hidden = !neuron.live || !neuron.index.photos || shownOf.place !== "image";
  drawHeats().catch((error) => indexNote(error.message));
  if (!list.length) part("examples").append(make("li", { class: "text" }, shownOf.end === "top" ? "It is never active there." : "Nowhere."));
}

/** Heat over the photos that are listed, one after another; what is not listed any more is left. */
async function drawHeats() {
  const frames = part("heats").checked && shownOf.place === "image" ? [...part("examples").querySelectorAll(".frame")] : [];
  const [begun, total] = [performance.now(), frames.length];
  for (const [done, frame] of frames.entries()) {
    const photo = frame.querySelector("img");
    if (!photo || !frame.isConnected) continue;
    const left = done ? ((performance.now() - begun) / 1000 / done) * (total - done) : null;
    const hear = ({ event }) => event === "progress" && working(progressOf({ stage: "reading the photos", done, total, left }), { done, total });
    const { heat } = await ask("heat", { item: neuron.index.id, neuron: neuron.address, number: Number(frame.dataset.item) }, { hear });
    if (!heat.mean) throw new Refused(heat.note);
    photo.loading = "eager"; // one that is not in sight would not be decoded
    await photo.decode();
    const canvas = make("canvas", {});
    frame.classList.add("heated");
    frame.append(canvas);
    drawHeat(canvas, heat, heat.mean, 0.75, false, shownOf.end === "bottom");
  }
}

async function drawAlike() {
  if (EXPORTED) return;
  part("alike").hidden = false;
  part("alike-list").textContent = "looking through the index …";
  const answer = await fetch(`/api/similar/${path(neuron.index.id)}?neuron=${neuron.address}`);
  const found = await answer.json();
  const { neurons = [] } = found;
  part("alike").hidden = !neurons.length;
  if (!answer.ok) return indexNote(found.message);
  part("alike-list").replaceChildren(...neurons.flatMap(({ neuron: name, score }) => [
    make("a", { class: "chip", href: neuronUrl(name), title: `correlation of ranks ${digits(score)}` }, name), " "]));
}

function indexNote(text) {
  part("index-note").hidden = false;
  part("index-note").textContent = text;
}

if (neuron.index) {
  part("heats").addEventListener("change", drawPlace);
  const names = Object.keys(neuron.index.places).filter((place) => neuron.index.places[place].count);
  shownOf.place = names.includes("image") && neuron.index.places.image.top.length ? "image" : names[0] ?? Object.keys(neuron.index.places)[0];
  const [place, end, heat] = location.hash.slice(1).split("/");
  part("heats").checked = heat === "heat";
  if (names.includes(place)) shownOf.place = place;
  if (end === "bottom") shownOf.end = end;
  part("indexed").hidden = false;
  part("index-note").textContent = neuron.index.note ?? "";
  part("index-note").hidden = !neuron.index.note;
  part("places-of").append(...names.map((place) => {
    const button = make("button", { type: "button", "data-place": place }, PLACE_NAMES[place] ?? place);
    button.addEventListener("click", () => { shownOf.place = place; drawPlace(); });
    return button;
  }));
  for (const button of part("signs").children) button.addEventListener("click", () => { shownOf.end = button.dataset.end; drawPlace(); });
  part("all").addEventListener("click", () => { shownOf.everything = true; drawPlace(); });
  drawPlace();
  drawAlike().catch((error) => indexNote(error.message));
}
