// A neuron of an exported index: its piece of the data is fetched, then the page draws it as the viewer does.

const PIECE = 64; // as they were written
const address = (new URLSearchParams(location.search).get("n") ?? "").toUpperCase();
const [, layer, expert, unit] = address.match(/^L(\d+)\.(?:E(\d+)\.)?U(\d+)$/) ?? [];

async function fetched(name) {
  const answer = await fetch(`data/${name}.json`);
  if (!answer.ok) throw new Error(`There is no neuron ${address || "named in the address"} here.`);
  return answer.json();
}

async function load() {
  const inside = expert === undefined ? `L${layer}` : `L${layer}/E${expert}`;
  const [piece, items, about] = await Promise.all([fetched(`${inside}/${Math.floor(unit / PIECE)}`), fetched("items"), fetched("about")]);
  const own = piece[address];
  if (!own) throw new Error(`There is no neuron ${address} here.`);
  for (const place of Object.values(own.places)) {
    for (const end of ["top", "bottom"]) place[end] = place[end].map((row) => ({ ...items[row.item], ...row }));
  }
  const neuron = { address, layer: own.layer, unit: own.unit, expert: own.expert, places: [], count: 0, live: false,
    writable: false, noted: {}, ends: own.ends, index: { ...about, id: "", threshold: own.threshold, places: own.places, label: own.label } };
  document.getElementById("neuron-json").textContent = JSON.stringify(neuron);
  document.title = `${address} · ${about.title}`;
  await import("./neuron.js");
}

load().catch((error) => {
  document.querySelector("main").replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: error.message }));
});
