// The rows of neurons: address, score with a bar, activation, the tokens that it raises and lowers.

const AT_FIRST = 20;
const AT_MOST = 100;
const OWN = "the score less the mean size of this neuron's scores for the other words";

function drawRows(concept, state, shared) {
  const focused = part("rows").contains(document.activeElement) && document.activeElement.closest("li").dataset.index;
  const all = concept.neurons.map((neuron, index) => ({ neuron, index }));
  const listed = all.slice(0, AT_MOST).filter(({ neuron }) => state.layer === null || neuron.layer === state.layer);
  const shown = state.everything ? listed : listed.slice(0, AT_FIRST);
  const largest = Math.max(...all.map(({ neuron }) => Math.abs(neuron.score)), Number.MIN_VALUE);
  const own = [concept.word, concept.token].map((text) => bare(text ?? "")).filter(Boolean);
  part("rows").replaceChildren(...shown.map(({ neuron, index }) =>
    row(neuron, index, largest, own, shared(neuron), index === state.pinned)));
  const pins = [...part("rows").querySelectorAll(".address")];
  (pins.find((pin) => pin.getAttribute("aria-pressed") === "true") ?? pins[0])?.setAttribute("tabindex", 0);
  if (focused) part("rows").querySelector(`[data-index="${focused}"] .address`)?.focus();
  part("more").hidden = shown.length === listed.length;
  part("more").textContent = `Show all ${listed.length}`;
  part("rest").hidden = all.length <= AT_MOST;
  part("rest").textContent = `The JSON holds ${all.length}; the first ${AT_MOST} are listed here.`;
}

function row(neuron, index, largest, own, others, pinned) {
  const name = address(neuron);
  const bar = make("i", { class: neuron.score < 0 ? "below" : "" });
  bar.style.width = `${(100 * Math.abs(neuron.score)) / largest}%`;
  const label = `${name}, rank ${index + 1}, score ${digits(neuron.score)}, activation ${digits(neuron.activation)}`;
  return make("li", { "data-index": index, class: pinned ? "pinned" : "" },
    make("span", { class: "rank", "aria-hidden": "true" }, String(index + 1)),
    make("span", { class: "name" },
      make("button", { type: "button", class: "address", tabindex: -1, "aria-pressed": pinned, "aria-label": label },
        name),
      make("button", { type: "button", class: "copy plain", tabindex: -1, "aria-label": `Copy ${name}` }, "copy"),
      ...(viewer ? [make("a", { class: "copy plain", href: `/n/${name}`, "aria-label": `The page of ${name}` }, "page")] : [])),
    make("span", { class: "score", title: String(neuron.score) },
      make("span", { class: "track" }, bar),
      make("span", { class: "number" }, digits(neuron.score), ...beside("adds", neuron.adds),
        ...beside("own", neuron.own, OWN))),
    make("span", { class: "activation number", title: String(neuron.activation ?? "not recorded by this method") },
      digits(neuron.activation),
      ...beside("usually", neuron.baseline)),
    make("span", { class: "tokens" }, ...ends(neuron, own),
    ...(others.length ? [make("span", { class: "shared" }, `also among the neurons of ${others.join(", ")}`)] : [])));
}

/** Attention heads, where the finding has them. */
function drawHeads(concept) {
  const heads = concept.heads ?? [];
  const largest = Math.max(...heads.map(({ score }) => Math.abs(score)), Number.MIN_VALUE);
  const own = [concept.word, concept.token].map((text) => bare(text ?? "")).filter(Boolean);
  part("attention").hidden = !heads.length;
  part("head-rows").replaceChildren(...heads.slice(0, AT_MOST).map((head, index) => {
    const bar = make("i", { class: head.score < 0 ? "below" : "" });
    bar.style.width = `${(100 * Math.abs(head.score)) / largest}%`;
    return make("li", { class: "head" },
      make("span", { class: "rank", "aria-hidden": "true" }, String(index + 1)),
      make("span", { class: "name" }, `L${head.layer}.H${head.head}`),
      make("span", { class: "score", title: String(head.score) },
        make("span", { class: "track" }, bar), make("span", { class: "number" }, digits(head.score))),
      make("span", { class: "tokens" }, ...["raises", "lowers"].map((end) =>
        make("span", { class: `line ${end}` }, make("span", { class: "end" }, end), ...chips(head[end], own)))));
  }));
}

/** A second number below the first, where there is one. */
function beside(name, value, title = "") {
  return value == null ? [] : [make("span", { class: "beside", title }, `${name} ${digits(value)}`)];
}

/** Both ends of a neuron; of a finding in the published form, or of an older one, its tokens alone. */
function ends(neuron, own) {
  if (!neuron.raises || finding.form === "logits") return chips(neuron.tokens, own);
  return ["raises", "lowers"].map((end) =>
    make("span", { class: `line ${end}` }, make("span", { class: "end" }, end), ...chips(neuron[end], own)));
}

/** Tokens that differ in case and blanks alone, or are pieces of characters, are one chip. */
function chips(tokens, own) {
  const groups = new Map();
  for (const token of tokens) {
    const key = /\ufffd|^<0x[0-9a-f]{2}>$/iu.test(token) ? "\ufffd" : token.trim().toLowerCase();
    groups.set(key, [...(groups.get(key) ?? []), token]);
  }
  return [...groups.values()].map((group) => {
    const chip = tokenElement(group[0], group.some((token) => own.includes(bare(token))) ? "chip own" : "chip");
    if (group.length > 1) chip.title = group.map((token) => JSON.stringify(token)).join(" ");
    return chip;
  });
}

/** Where a neuron is below what it usually is, it writes its value vector turned around. */
const below = ({ activation, baseline }) => activation != null && activation < (baseline ?? 0);

const bare = (token) => token.replace(/^[\s▁Ġ]+|\s+$/gu, "").toLowerCase();

/** Pointing at a row or focusing it shows its own heat; choosing it keeps that. */
function listenToRows(point, pin) {
  const rows = part("rows");
  const indexOf = (node) => {
    const item = node?.closest?.("li");
    return item ? Number(item.dataset.index) : null;
  };
  rows.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(indexOf(event.target)));
  rows.addEventListener("pointerleave", () => point(null));
  rows.addEventListener("focusin", (event) => {
    for (const button of rows.querySelectorAll("button[tabindex='0']")) button.setAttribute("tabindex", -1);
    for (const button of event.target.closest("li").querySelectorAll("button")) button.setAttribute("tabindex", 0);
    if (event.target.matches(":focus-visible")) point(indexOf(event.target)); // reached by keyboard, not by a tap
  });
  rows.addEventListener("focusout", () => point(null));
  rows.addEventListener("click", (event) => {
    const index = indexOf(event.target);
    if (index === null) return;
    if (event.target.matches(".copy")) copyFrom(event.target);
    else if (!String(getSelection())) pin(index); // selecting tokens to copy them is no choice of a row
  });
  rows.addEventListener("keydown", (event) => {
    const pins = [...rows.querySelectorAll(".address")];
    const at = pins.indexOf(event.target.closest("li")?.querySelector(".address"));
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: pins.length - 1 }[event.key];
    if (next === undefined || !pins[next]) return;
    event.preventDefault();
    pins[next].focus();
  });
}

async function copyFrom(button) {
  await copy(button.parentElement.querySelector(".address").textContent);
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1200);
}
