// A neuron of an exported index: its piece of the data is fetched, then the page draws it as the viewer does.

const PIECE = 64, ITEMS = 256; // as they were written
const AROUND = 24, CHARACTERS = 100; // of a text, before and after the token, as the viewer shows them
const address = (new URLSearchParams(location.search).get("n") ?? "").toUpperCase();
const [, layer, expert, unit] = address.match(/^L(\d+)\.(?:E(\d+)\.)?U(\d+)$/) ?? [];

async function fetched(name) {
  const answer = await fetch(`data/${name}.json`);
  if (!answer.ok) throw new Error(`There is no neuron ${address || "named in the address"} here.`);
  return answer.json();
}

/** The photos and texts of some examples, by their numbers. */
async function itemsOf(examples) {
  const pieces = [...new Set(examples.map(([item]) => Math.floor(item / ITEMS)))];
  const rows = (await Promise.all(pieces.map((piece) => fetched(`items/${piece}`)))).flat();
  return new Map(rows.map((row) => [row.item, row]));
}

/** An example as the viewer's pages have it: its token, and the text around that. */
function example(items, [number, value, position, box = null]) {
  const { tokens: runs, ...item } = items.get(number);
  const tokens = runs.flatMap((one) => (typeof one === "number" ? Array(one).fill("") : [one]));
  const cut = (from, to) => [...tokens.slice(Math.max(0, from), to).join("")];
  return { ...item, value, box, token: tokens[position], before: cut(position - AROUND, position).slice(-CHARACTERS).join(""),
    after: cut(position + 1, position + 1 + AROUND).slice(0, CHARACTERS).join("") };
}

async function load() {
  const inside = expert === undefined ? `L${layer}` : `L${layer}/E${expert}`;
  const [piece, about] = await Promise.all([fetched(`${inside}/${Math.floor(unit / PIECE)}`), fetched("about")]);
  const own = piece[address];
  if (!own) throw new Error(`There is no neuron ${address} here.`);
  const places = Object.values(own.places);
  const items = await itemsOf(places.flatMap(({ top, bottom }) => [...top, ...bottom]));
  for (const place of places) for (const end of ["top", "bottom"]) place[end] = place[end].map((one) => example(items, one));
  const neuron = { address, layer: own.layer, unit: own.unit, expert: own.expert, places: [], count: 0, live: false,
    writable: false, noted: {}, ends: own.ends, index: { ...about, id: "", threshold: own.threshold, places: own.places, label: own.label } };
  document.getElementById("neuron-json").textContent = JSON.stringify(neuron);
  document.title = `${address} · ${about.title}`;
  await import("./neuron.js");
}

load().catch((error) => {
  document.querySelector("main").replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: error.message }));
});
