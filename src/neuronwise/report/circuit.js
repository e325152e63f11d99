// Draws a circuit: layers upwards, the positions that take part from left to right, the prompt below.
const data = JSON.parse(document.getElementById("circuit-json").textContent);
const part = (name) => document.querySelector(`[data-part="${name}"]`);
const svg = (name, attributes = {}, parent = null) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
};
const html = (name, text = "", parent = null, kind = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  parent?.append(element);
  return element;
};
const shown = (text) => text.replaceAll(" ", "·").replaceAll("\n", "⏎") || "∅";
const fixed = (number) => number.toFixed(3);
const LOGIT = `logit over ${data.options.contrast === null ? "the mean of all tokens" : "its alternatives"}`;

const nodes = new Map(data.nodes.map((node) => [node.place, node]));
const leaves = new Map(data.leaves.map((leaf) => [`@${leaf.position}`, leaf]));
const total = new Map(); // what each leaf passes on
for (const edge of data.edges) if (leaves.has(edge.source)) total.set(edge.source, (total.get(edge.source) ?? 0) + edge.weight);

// Columns: every token, and of an image's positions those that hold a node or pass most on.
const patches = data.leaves.filter((leaf) => leaf.kind === "image");
const strong = new Set([...patches].sort((a, b) => Math.abs(total.get(`@${b.position}`) ?? 0) - Math.abs(total.get(`@${a.position}`) ?? 0))
  .slice(0, 8).map((leaf) => leaf.position));
const held = new Set(data.nodes.map((node) => node.position));
const columns = data.leaves.filter((leaf) => leaf.kind === "token" || strong.has(leaf.position) || held.has(leaf.position));

// A column is as wide as its most crowded layer; few columns fill the width that there is, many scroll.
const groups = Map.groupBy(data.nodes, (node) => `${node.layer}@${node.position}`);
const crowd = new Map();
for (const group of groups.values()) crowd.set(group[0].position, Math.max(crowd.get(group[0].position) ?? 0, group.length));
const widths = columns.map((leaf) => Math.max(26, 9 * (crowd.get(leaf.position) ?? 0) + 12));
const LAYER = 20, LEFT = 46, RIGHT = 46, TOP = 40, BOTTOM = 70, middle = new Map();
const sum = widths.reduce((total, one) => total + one, 0), room = document.querySelector(".wide").clientWidth - LEFT - RIGHT;
const stretch = Math.max(1, Math.min(3, room / sum));
let edge = LEFT;
columns.forEach((leaf, index) => {
  middle.set(leaf.position, edge + (stretch * widths[index]) / 2);
  edge += stretch * widths[index];
});
const width = edge + RIGHT;
const height = TOP + (data.num_layers + 2) * LAYER + BOTTOM;
const x = (position) => middle.get(position);
const y = (layer) => height - BOTTOM - (layer + 1) * LAYER;
const last = Math.max(...data.leaves.map((leaf) => leaf.position));

// Nodes of one layer and position stand side by side.
const places = new Map();
for (const group of groups.values())
  group.forEach((node, index) => places.set(node.place, [x(node.position) + (index - (group.length - 1) / 2) * 9 * stretch, y(node.layer)]));
for (const leaf of columns) places.set(`@${leaf.position}`, [x(leaf.position), height - BOTTOM + 4]);
places.set("target", [x(last), y(data.num_layers)]);

const graph = part("graph");
graph.setAttribute("viewBox", `0 0 ${width} ${height}`);
graph.setAttribute("width", width);
graph.setAttribute("height", height);
for (let layer = 0; layer < data.num_layers; layer += 5) {
  svg("line", { x1: LEFT - 8, x2: width - RIGHT + 8, y1: y(layer), y2: y(layer), class: "grid" }, graph);
  for (const x of [8, width - 30]) svg("text", { x, y: y(layer) + 4 }, graph).textContent = `L${layer}`; // one is in sight
}
const lines = svg("g", {}, graph), reaches = svg("g", {}, graph);
const dots = svg("g", {}, graph);
const largest = Math.max(...data.nodes.map((node) => Math.abs(node.score)), 1e-9);

function addNode(place, sign, label, shape) {
  const group = svg("g", { class: `node ${sign >= 0 ? "plus" : "minus"}`, tabindex: 0, role: "button", "aria-label": label }, dots);
  group.dataset.place = place;
  group.append(shape);
  group.addEventListener("mouseenter", () => pinned ?? light(place));
  group.addEventListener("mouseleave", () => pinned ?? light(null));
  group.addEventListener("focus", () => pinned ?? light(place));
  group.addEventListener("click", () => pin(place));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") pin(place), event.preventDefault();
  });
}
for (const node of data.nodes) {
  const [cx, cy] = places.get(node.place);
  const shape = svg("circle", { cx, cy, r: 2.5 + 6 * Math.sqrt(Math.abs(node.score) / largest) });
  addNode(node.place, node.score, `${node.place}, relevance ${fixed(node.score)}`, shape);
}
for (const leaf of columns) {
  const place = `@${leaf.position}`, [cx, cy] = places.get(place);
  addNode(place, total.get(place) ?? 0, `Position ${leaf.position}: ${leaf.label}`, svg("rect", { x: cx - 4, y: cy - 4, width: 8, height: 8 }));
  const label = leaf.kind === "image" ? `patch ${leaf.position}` : shown(leaf.label);
  const text = svg("text", { x: cx, y: cy + 16, class: "token", "text-anchor": "end", transform: `rotate(-38 ${cx} ${cy + 16})` }, dots);
  text.textContent = label.length > 10 ? `${label.slice(0, 9)}…` : label;
}
{
  const [cx, cy] = places.get("target");
  addNode("target", 1, `The target ${data.target}`, svg("circle", { cx, cy, r: 7 }));
  svg("text", { x: cx, y: cy - 14, class: "token", "text-anchor": "middle" }, dots).textContent = shown(data.target);
}

let pinned = null;
let drawn = [];
function draw(count) {
  lines.replaceChildren();
  reaches.replaceChildren();
  drawn = data.edges.filter((edge) => places.has(edge.source) && places.has(edge.target)).slice(0, count);
  const most = Math.abs(drawn[0]?.weight ?? 1);
  for (const edge of drawn) {
    const [x1, y1] = places.get(edge.source), [x2, y2] = places.get(edge.target), share = Math.abs(edge.weight) / most;
    const bend = (y1 + y2) / 2;
    const d = `M${x1} ${y1}C${x1} ${bend} ${x2} ${bend} ${x2} ${y2}`;
    const line = svg("path", { d, class: `edge ${edge.weight >= 0 ? "up" : "down"}`, "stroke-width": 0.6 + 3.4 * Math.sqrt(share) }, lines);
    line.style.opacity = 0.15 + 0.6 * Math.sqrt(share);
    line.edge = edge;
    const reach = svg("path", { d, class: "reach", "data-edge": `${edge.source} ${edge.target}` }, reaches); // wide enough to point at
    reach.addEventListener("mouseenter", () => pinned ?? (line.classList.add("pointed"), describeEdge(edge)));
    reach.addEventListener("mouseleave", () => pinned ?? (line.classList.remove("pointed"), describe(null)));
  }
  part("shown").textContent = `${drawn.length} of ${data.all_edges}`;
  light(pinned);
}
function light(place) {
  const near = new Set([place]);
  for (const line of lines.children) {
    const lit = line.edge.source === place || line.edge.target === place;
    line.classList.toggle("lit", lit);
    if (lit) near.add(line.edge.source).add(line.edge.target);
  }
  graph.classList.toggle("faded", place !== null);
  for (const node of dots.querySelectorAll(".node")) {
    node.classList.toggle("lit", near.has(node.dataset.place));
    node.classList.toggle("held", node.dataset.place === pinned);
  }
  describe(place);
  paint(place);
}
function pin(place) {
  pinned = pinned === place ? null : place;
  part("unpin").hidden = pinned === null;
  light(pinned);
}
part("unpin").addEventListener("click", () => pin(pinned));
document.addEventListener("keydown", (event) => event.key === "Escape" && pinned && pin(pinned));

const named = (place) => {
  if (place === "target") return `target ${shown(data.target)}`;
  const leaf = leaves.get(place);
  return leaf ? (leaf.kind === "image" ? `patch at ${leaf.position}` : `${shown(leaf.label)} at ${leaf.position}`) : place;
};
const byHeads = (heads, most = 3) => Object.entries(heads ?? {}).slice(0, most).map(([head, weight]) => `${head} ${fixed(weight)}`).join(" · ");
function listing(box, heading, rows) {
  if (!rows.length) return;
  html("h2", heading, box);
  const list = html("ol", "", box);
  for (const [name, weight, beside] of rows) {
    const row = html("li", "", list);
    html("span", name, row);
    html("span", fixed(weight), row);
    if (beside) html("span", `by ${beside}`, row, "by");
  }
}
function describe(place) {
  const box = part("detail");
  box.replaceChildren();
  if (place === null) {
    html("p", "Point at a node to see what it gets and what it passes on, or at an edge to see which attention heads carry it; click a node to hold it.", box, "note");
    return;
  }
  html("h2", named(place), box);
  const node = nodes.get(place);
  if (node) {
    if ("viewer" in document.documentElement.dataset) html("a", "the neuron's page", box).href = `/n/${place.split("@")[0]}`;
    html("p", `relevance ${fixed(node.score)} · activation ${fixed(node.activation)}`, box);
    html("p", `raises ${node.raises.map(shown).join(" ")}`, box, "tokens");
    html("p", `lowers ${node.lowers.map(shown).join(" ")}`, box, "tokens");
  } else if (leaves.has(place)) html("p", `passes on ${fixed(total.get(place) ?? 0)} by the edges listed here`, box);
  else html("p", `${LOGIT} ${fixed(data.value)}`, box);
  const brought = place === "target" ? data.heads : node?.heads;
  listing(box, "brought by attention head", Object.entries(brought ?? {}).slice(0, 5));
  for (const [heading, own, other] of [["from", "target", "source"], ["to", "source", "target"]])
    listing(box, heading, data.edges.filter((edge) => edge[own] === place).slice(0, 8)
      .map((edge) => [named(edge[other]), edge.weight, byHeads(edge.heads)]));
}
/** An edge that is pointed at: where from and to, and which heads carried it. */
function describeEdge(edge) {
  const box = part("detail"), told = Object.values(edge.heads ?? {}).reduce((sum, weight) => sum + weight, 0);
  box.replaceChildren();
  html("h2", `${named(edge.source)} → ${named(edge.target)}`, box);
  html("p", `passes on ${fixed(edge.weight)}`, box);
  listing(box, "by attention head", Object.entries(edge.heads ?? {}).slice(0, 8));
  if (edge.heads) html("p", `by other heads, or without any: ${fixed(edge.weight - told)}`, box, "note");
}
function paint(place) {
  if (!data.grid) return;
  const { positions, rows, columns: across, box } = data.grid, [left, top, right, bottom] = box;
  const given = new Map();
  for (const edge of data.edges)
    if (place === null ? true : edge.target === place) if (leaves.has(edge.source)) given.set(edge.source, (given.get(edge.source) ?? 0) + edge.weight);
  const most = Math.max(...positions.map((position) => Math.abs(given.get(`@${position}`) ?? 0)), 1e-9);
  const layer = part("patches");
  layer.replaceChildren();
  positions.forEach((position, index) => {
    const value = given.get(`@${position}`) ?? 0, cell = html("i", "", layer);
    cell.style.left = `${100 * (left + ((right - left) * (index % across)) / across)}%`;
    cell.style.top = `${100 * (top + ((bottom - top) * Math.floor(index / across)) / rows)}%`;
    cell.style.width = `${(100 * (right - left)) / across}%`;
    cell.style.height = `${(100 * (bottom - top)) / rows}%`;
    cell.style.background = value >= 0 ? "var(--up)" : "var(--down)";
    cell.style.opacity = (0.75 * Math.abs(value)) / most;
    if (place === `@${position}`) cell.style.outlineColor = "var(--ink)", (cell.style.opacity = 1), (cell.style.background = "none");
  });
}

part("model").textContent = data.model;
part("asked").textContent = data.text ? `${data.prompt} → ${data.text}` : data.prompt;
part("title").textContent = `Circuit of “${data.target.trim() || shown(data.target)}”`;
part("about").textContent = `${data.nodes.length} neurons, each at its position, and what passes between them. Layers go up, the prompt is below. ` +
  `The strongest of ${data.all_edges} edges are drawn; each is a share of the target's ${LOGIT}, ${fixed(data.value)}.` + (data.note ? ` ${data.note}` : "");
part("stage").hidden = !document.querySelector('[data-part="photo"]');
for (const [name, value] of [["model", data.model], ["prompt", data.prompt], ["text", data.text], ["target", data.target],
  ["options", Object.entries(data.options).map(([name, value]) => `${name} ${value ?? "none"}`).join(", ")], ["versions", Object.entries(data.versions).map((one) => one.join(" ")).join(", ")]]) {
  if (!value) continue;
  html("dt", name, part("made"));
  html("dd", String(value), part("made"));
}
part("count").addEventListener("input", (event) => draw(Number(event.target.value)));
draw(Number(part("count").value));
const wide = document.querySelector(".wide");
wide.scrollLeft = wide.scrollWidth; // the target is on the right
