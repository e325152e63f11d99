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
