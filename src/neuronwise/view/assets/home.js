// Everything in the opened folders.

const home = JSON.parse(document.getElementById("home-json").textContent);
const NAMES = { finding: "Findings", circuit: "Circuits", study: "Studies", evaluation: "Evaluations", edit: "Edits", index: "Indexes" };
const PARTS = 12; // photos of one entry
const whole = home.items.filter(({ part_of: of }) => !of);
const inside = Map.groupBy(home.items.filter(({ part_of: of }) => of), ({ part_of: of }) => of);

/** The photos or texts of a finding over several, each a link to its own. */
function partsOf(parts) {
  if (!parts.length) return [];
  const links = parts.slice(0, PARTS).map(({ id, title, photo }) => make("a", { href: `/finding/${path(id)}`, title, dir: "auto" },
    photo ? make("img", { loading: "lazy", src: `/thumbnail/${path(id)}`, alt: title }) : title));
  return [make("span", { class: "item-parts" }, ...links, ...(parts.length > PARTS ? [`and ${parts.length - PARTS} more`] : []))];
}

function listItem({ id, kind, title, about, model, broken, photo }) {
  const link = broken ? make("span", { class: "item-title" }, title)
    : make("a", { class: "item-title", href: `/${kind}/${path(id)}`, dir: "auto" }, title);
  const seen = photo ? [make("img", { loading: "lazy", src: `/thumbnail/${path(id)}`, alt: "" })] : [];
  return make("li", { class: broken ? "broken" : "" }, ...seen, link,
    make("span", { class: "item-about" }, broken ?? [about, model].filter(Boolean).join(" · ")),
    ...partsOf(inside.get(id) ?? []));
}

function draw() {
  const words = part("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (word) => ({ title, about, model }) => `${title} ${about} ${model}`.toLowerCase().includes(word);
  const fits = (item) => words.every((word) => [item, ...(inside.get(item.id) ?? [])].some(holds(word)));
  part("lists").replaceChildren(...Object.entries(NAMES).flatMap(([kind, name]) => {
    const own = whole.filter((item) => item.kind === kind && fits(item));
    return own.length ? [make("section", {}, make("h2", {}, `${name} `, make("small", {}, String(own.length))),
      make("ul", { class: "items" }, ...own.map(listItem)))] : [];
  }));
  if (!part("lists").children.length) {
    part("lists").append(make("p", { class: "note" }, words.length ? "Nothing here has these words."
      : home.live ? "The opened folders hold nothing yet. Find something: drop a photo on the page “Find”."
        : "The opened folders hold nothing that neuronwise wrote, and there is no model."));
  }
}

const starred = Object.entries(home.notes);
part("lead").textContent = whole.length ? `${plural(whole.length, "result")} to look at` : "Nothing here yet";
part("filter").hidden = whole.length < 2;
part("starred").hidden = !starred.length;
part("stars").append(...starred.flatMap(([address, { star, note }]) => [
  make("a", { class: "chip", href: neuronUrl(address), title: note ?? "" }, `${star ? "★ " : ""}${address}`), " "]));
part("note").hidden = !home.note;
part("note").textContent = home.note ?? "";
part("filter").value = kept("filter");
part("filter").addEventListener("input", () => { keep({ filter: part("filter").value }); draw(); });
draw();

addEventListener("keydown", (event) => {
  const links = [...document.querySelectorAll("a.item-title")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest?.("textarea")) return;
  const next = links[links.indexOf(document.activeElement) + step] ?? (step > 0 ? links[0] : null);
  if (next) { event.preventDefault(); next.focus(); }
});
