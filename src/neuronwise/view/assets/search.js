// Which neurons write a token.

const { asked: token, live: hasModel } = told("search");

function hit({ neuron, score, raises, lowers }) {
  const line = (name, tokens) => make("span", { class: `line ${name}` }, make("span", { class: "end" }, name),
    ...tokens.slice(0, 8).map((one) => tokenElement(one)));
  return make("li", {}, make("a", { class: "address", href: `/n/${neuron}` }, neuron),
    make("span", { class: "number" }, digits(Math.abs(score))), line("raises", raises), line("lowers", lowers));
}

async function search() {
  part("token").append(token.trim() ? tokenElement(token, "inline") : "a token");
  if (!token.trim()) return;
  if (!hasModel) throw new Error("Searching by token needs a model; start the viewer with --model.");
  const found = await ask("search", { token });
  part("token").replaceChildren(tokenElement(found.token, "inline"));
  part("ends").hidden = false;
  for (const end of ["raises", "lowers"]) part(end).append(...found[end].map(hit));
}

search().catch((error) => problem(error));

addEventListener("keydown", (event) => {
  const links = [...document.querySelectorAll(".hits .address")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest?.("input, textarea")) return;
  const next = links[links.indexOf(document.activeElement) + step];
  if (next) { event.preventDefault(); next.focus(); }
});
