// Two findings side by side: the words of each, their neurons, and which both have.

const compare = JSON.parse(document.getElementById("compare-json").textContent);
const SIDES = ["a", "b"];
const LISTED = 25;

SIDES.forEach((side, index) => {
  const select = part(side);
  const choice = ({ id, title, model }) => {
    const option = make("option", { value: id }, `${title.slice(0, 80)} · ${model}`);
    option.selected = id === compare.chosen[index];
    return option;
  };
  const parts = compare.findings.filter(({ part_of: of }) => of);
  select.append(make("option", { value: "" }, "choose a finding"), ...compare.findings.filter(({ part_of: of }) => !of).flatMap((whole) => {
    const own = parts.filter(({ part_of: of }) => of === whole.id);
    return [choice(whole), ...(own.length ? [make("optgroup", { label: whole.title.slice(0, 80) }, ...own.map(choice))] : [])];
  }));
  select.addEventListener("change", () => {
    const [a, b] = SIDES.map((name) => part(name).value);
    location.href = `/compare?${new URLSearchParams({ a, b })}`;
  });
});

/** The word of each side, as the address says it. */
const chosen = compare.sides.map((side, index) => Math.max(0, side?.concepts.findIndex(({ word }) => word === kept(`word-${SIDES[index]}`)) ?? 0));
const neuronsOf = (index) => compare.sides[index]?.concepts[chosen[index]]?.neurons ?? [];

function draw() {
  const sets = SIDES.map((_, index) => new Set(neuronsOf(index).map(address)));
  const both = [...sets[0]].filter((name) => sets[1].has(name)).length;
  const words = compare.sides.map((side, index) => side?.concepts[chosen[index]]?.word.trim());
  part("shared").textContent = compare.sides.every(Boolean)
    ? `“${words[0]}” and “${words[1]}” share ${both} of their first ${Math.min(...sets.map((set) => set.size))} neurons.` : "";
  compare.sides.forEach((side, index) => side && drawSide(side, index, sets[1 - index]));
}

function drawSide(side, index, others) {
  const place = part(`side-${SIDES[index]}`);
  for (const old of [...place.children].slice(1)) old.remove();
  const concept = side.concepts[chosen[index]];
  const words = side.concepts.map(({ word }, at) => {
    const button = make("button", { type: "button", "aria-pressed": at === chosen[index] }, word.trim() || word);
    button.addEventListener("click", () => {
      chosen[index] = at;
      keep({ [`word-${SIDES[index]}`]: side.concepts[at].word });
      draw();
    });
    return button;
  });
  const largest = Math.max(...concept.neurons.map(({ score }) => Math.abs(score)), Number.MIN_VALUE);
  place.append(make("p", { class: "caption long", dir: "auto" }, side.text || side.prompt), make("p", { class: "explained" }, `${side.model} · ${side.method}`),
    make("p", { class: "words", role: "group", "aria-label": "Words" }, ...words),
    make("ol", { class: "hits" }, ...concept.neurons.slice(0, LISTED).map((neuron) => {
      const bar = make("i", { class: neuron.score < 0 ? "below" : "" });
      bar.style.width = `${(100 * Math.abs(neuron.score)) / largest}%`;
      return make("li", { class: others.has(address(neuron)) ? "in-both" : "" }, make("a", { class: "address", href: neuronUrl(address(neuron)) }, address(neuron)),
        make("span", { class: "track" }, bar), make("span", { class: "number" }, digits(neuron.score)),
        make("span", { class: "line" }, ...(neuron.raises ?? neuron.tokens).slice(0, 6).map((token) => tokenElement(token))));
    })));
}

draw();
