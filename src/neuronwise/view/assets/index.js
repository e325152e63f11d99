// An index: what it is of, and its photos and texts.

const index = JSON.parse(document.getElementById("index-json").textContent);

part("title").textContent = index.title;
const places = Object.entries(index.positions).map(([place, count]) => `${count.toLocaleString("en")} ${place}`).join(", ");
part("about").textContent = `${index.neurons.toLocaleString("en")} neurons over ${index.count.toLocaleString("en")} photos and texts; positions: ${places}.`;
part("layers").append(...index.first.flatMap((address, at) => [make("a", { class: "chip", href: neuronUrl(address) }, `L${index.layers[at]}`), " "]));
part("form").parentElement.hidden = EXPORTED;
part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (part("word").value.trim()) location.href = `/search?q=${encodeURIComponent(part("word").value.trim())}`;
});
part("note").textContent = index.note ?? "";
part("note").hidden = !index.note;
const SHOWN = 30;
function drawLabels() {
  const wanted = part("wanted").value.toLowerCase().split(/\s+/);
  const found = index.labels.filter(({ text, neuron }) => wanted.every((word) => `${text} ${neuron}`.toLowerCase().includes(word)));
  part("labels").replaceChildren(...found.slice(0, SHOWN).map(labelled));
  part("labels-note").textContent = `${found.length > SHOWN ? `${SHOWN} of ${found.length}` : found.length || "None"}; with how well each tells what its neuron fires on, .5 by chance.`;
}
if (index.labels.length) {
  part("labelled").hidden = false;
  part("wanted").value = kept("label");
  part("wanted").addEventListener("input", () => { keep({ label: part("wanted").value }); drawLabels(); });
  drawLabels();
}
part("items").append(...index.items.map((one) => {
  const { kind, text, ratio } = one;
  const said = make("span", { class: "excerpt", dir: "auto" }, text);
  if (kind !== "photo") return make("li", { class: "text" }, said);
  const row = make("li", { class: "photo" }, make("span", { class: "frame" }, photoOf(index, one)), make("span", { class: "beneath" }, said));
  row.style.setProperty("--ratio", ratio);
  return row;
}));
const left = Object.keys(index.left_out).length;
part("rest").textContent = [index.count > index.items.length ? `The first ${index.items.length} are shown.` : "", left ? `${left} were left out: ${Object.entries(index.left_out).slice(0, 3).map((pair) => pair.join(": ")).join("; ")}` : ""].filter(Boolean).join(" ");
