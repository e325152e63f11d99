// The layer histogram: how many of the word's neurons sit in each layer; a bar is also the switch of a filter.

function drawLayers(counts, total, chosen, onChoose) {
  const svg = part("bars");
  const most = Math.max(...counts);
  const element = (name, attributes, ...children) => {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const label = (layer) => `Layer ${layer}: ${counts[layer]} of ${plural(total, "neuron")}`;
  const focused = svg.contains(document.activeElement) ? Number(document.activeElement.dataset.layer) : null;
  const current = focused ?? chosen ?? counts.indexOf(most);
  svg.setAttribute("viewBox", `0 0 ${counts.length} 100`);
  svg.replaceChildren(...counts.map((count, layer) => {
    const height = count && Math.max(5, (96 * count) / most); // one neuron among hundreds is still seen
    const bar = element("g", { "data-layer": layer, class: chosen === null || chosen === layer ? "" : "dim" },
      element("rect", { class: "slot", x: layer, y: 0, width: 1, height: 100 }),
      element("rect", { class: "bar", x: layer + 0.12, y: 100 - height, width: 0.76, height }));
    if (count) {
      const attributes = { role: "button", tabindex: layer === current ? 0 : -1, "aria-label": label(layer),
        "aria-pressed": layer === chosen };
      for (const [key, value] of Object.entries(attributes)) bar.setAttribute(key, value);
      bar.addEventListener("click", () => onChoose(layer === chosen ? null : layer));
    }
    return bar;
  }));
  const rest = () => readout(chosen === null ? summary(counts, total) : label(chosen));
  // On the whole and not on each bar: a listener for focus would make even the empty layers focusable.
  svg.onpointerover = svg.onfocusin = (event) => {
    const bar = event.target.closest("g");
    if (bar) readout(label(Number(bar.dataset.layer)));
  };
  svg.onpointerleave = svg.onfocusout = rest;
  svg.onkeydown = walkLayers;
  rest();
  if (focused !== null) svg.querySelector("[tabindex='0']")?.focus();
  const step = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 100].find((size) => counts.length / size <= 9) ?? 200;
  part("axis").replaceChildren(...counts.flatMap((_, layer) => {
    if (layer % step) return [];
    const tick = make("span", {}, String(layer));
    tick.style.left = `${(100 * (layer + 0.5)) / counts.length}%`;
    return [tick];
  }));
  part("all-layers").hidden = chosen === null;
}

function walkLayers(event) {
  const bars = [...part("bars").querySelectorAll("[role=button]")];
  const at = bars.indexOf(document.activeElement);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: bars.length - 1 }[event.key];
  if (event.key === "Enter" || event.key === " ") document.activeElement.dispatchEvent(new MouseEvent("click"));
  else if (next === undefined || !bars[next]) return;
  else moveFocus(bars[at], bars[next]);
  event.preventDefault();
}

/** One stop of the Tab key for a whole group: the arrows carry it along. */
function moveFocus(from, to) {
  from?.setAttribute("tabindex", -1);
  to.setAttribute("tabindex", 0);
  to.focus();
}

const readout = (text) => { part("readout").textContent = text; };

function summary(counts, total) {
  const held = counts.flatMap((count, layer) => (count ? [layer] : []));
  if (!held.length) return "";
  const most = counts.indexOf(Math.max(...counts));
  const where = held.length === 1 ? `all in layer ${most}`
    : `layers ${held[0]} to ${held.at(-1)}, most in layer ${most} (${counts[most]})`;
  return `${plural(total, "neuron")}: ${where}`;
}

/** Mark the layer of the neuron that is pointed at. */
function pointLayer(layer) {
  for (const bar of part("bars").children) bar.classList.toggle("pointed", Number(bar.dataset.layer) === layer);
}
