// The page of a neuron: what is known of it, and your note.

const neuron = told("neuron");
const POSITIVELY = "When it fires positively; the other way round when its activation is negative.";

function drawHead() {
  const { layer, unit, expert, address } = neuron;
  part("address").textContent = address;
  part("about").textContent = `${expert === null ? `Unit ${unit}` : `Unit ${unit} of expert ${expert}`} of the feed-forward block of layer ${layer}, counted from 0.`;
  const beside = (step) => neuronUrl(`L${layer}.${expert === null ? "" : `E${expert}.`}U${unit + step}`);
  if (unit > 0) part("before").href = beside(-1);
  part("after").href = beside(1);
}

/** That nothing here has this neuron, or no index. */
function drawAbsence() {
  const { index, indexes = [], places, live, address } = neuron;
  const lacking = index ? "" : indexes.map((title) => `“${title}” has no ${address}.`).join(" ");
  const nothing = index || places.length || live ? "" : "Nothing in the opened folders has this neuron; start the viewer with --model to read it.";
  part("absent").textContent = [lacking, nothing].filter(Boolean).join(" ");
  part("absent").hidden = !part("absent").textContent;
}

/** In words what it fires on, and whether the words tell it. */
function drawLabel() {
  const label = neuron.index?.label;
  if (!label) return;
  part("labelled").hidden = false;
  part("label").textContent = label.text;
  part("worth").textContent = `Written by ${label.explainer} from the photos and texts with its ${label.lowest ? "smallest" : "largest"} activations. ${worth(label)}`;
}

function drawEnds(ends, note) {
  for (const end of ["raises", "lowers"]) {
    const line = part("ends").querySelector(`.${end}`);
    line.replaceChildren(make("span", { class: "end" }, end), ...ends[end].map((token) => tokenElement(token)));
  }
  part("ends-note").textContent = note;
}

const SAID = {
  finding: ({ word, rank, of, score }) => [`number ${rank} of ${of} for “${word.trim()}”, score ${digits(score)}`],
  circuit: ({ word, place, score }) => [`${place} in the circuit of “${word.trim()}”, relevance ${digits(score)}`],
  edit: ({ word }) => [`changed by an edit (${word})`],
};

function drawPlaces() {
  part("found").hidden = !neuron.places.length;
  part("places").append(...neuron.places.map((place) => {
    const anchor = place.kind === "finding" ? `#${encodeURIComponent(place.word)}` : "";
    return make("li", {}, make("a", { href: `/${place.kind}/${path(place.id)}${anchor}`, dir: "auto" }, place.title || place.id), " ",
      make("span", { class: "item-about" }, ...SAID[place.kind](place), place.part_of ? `; one of ${place.part_of}` : ""));
  }));
  if (neuron.count > neuron.places.length) part("places").append(make("li", {}, `and ${neuron.count - neuron.places.length} more`));
}

/** From a finding the ends are those *there*: turned around where the neuron was below its usual activation. */
function endsFromFindings() {
  if (neuron.ends) return drawEnds(neuron.ends, POSITIVELY);
  const place = neuron.places.find(({ raises }) => raises);
  if (!place) return;
  const turned = (place.activation ?? 0) < (place.baseline ?? 0);
  drawEnds(turned ? { raises: place.lowers, lowers: place.raises } : place, POSITIVELY);
}

function drawNote() {
  const state = { note: neuron.noted.note ?? "", star: Boolean(neuron.noted.star) };
  part("note").value = state.note;
  const drawStar = () => {
    part("star").setAttribute("aria-pressed", state.star);
    part("star").textContent = state.star ? "★" : "☆";
  };
  drawStar();
  if (!neuron.writable) {
    part("note").readOnly = part("star").disabled = true;
    part("note-state").textContent = neuron.note ?? "Nothing is written by this viewer.";
    part("noted").hidden = !state.note && !neuron.note;
    part("star").hidden = !state.star;
    return;
  }
  async function keep() {
    try {
      await send(`/api/notes/${neuron.address}`, JSON.stringify(state));
      part("note-state").textContent = "kept in neuronwise-notes.json";
    } catch (error) {
      part("note-state").textContent = error.message;
    }
  }
  part("star").addEventListener("click", () => { state.star = !state.star; drawStar(); keep(); });
  part("note").addEventListener("change", () => { state.note = part("note").value; keep(); });
}

part("ends").hidden = !neuron.live && !neuron.ends && !neuron.places.some(({ raises }) => raises);
drawHead();
drawAbsence();
drawLabel();
endsFromFindings();
drawPlaces();
drawNote();
