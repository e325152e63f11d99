// The bar of every page: where you are, the search field, the keys.

const bar = told("bar");
const barPart = (name) => document.querySelector(`[data-bar="${name}"]`);
const ADDRESS = /^L\d+\.(E\d+\.)?U\d+$/i;

barPart("state").textContent = bar.model ?? "no model";
barPart("state").title = EXPORTED ? "" : bar.model ? `Live with ${bar.model}` : "Start with --model to ask a model";
for (const link of document.querySelectorAll(".bar a")) {
  if (link.getAttribute("href") === location.pathname) link.setAttribute("aria-current", "page");
}

const refused = document.getElementById("refused-json");
if (refused) part("refused").textContent = JSON.parse(refused.textContent);

barPart("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = barPart("query").value;
  if (ADDRESS.test(asked.trim())) location.href = neuronUrl(asked.trim().toUpperCase());
  else if (asked.trim() && !EXPORTED) location.href = `/search?q=${encodeURIComponent(asked)}`;
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape" && event.target === barPart("query")) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { "[": "prev", "]": "next" }[event.key];
  if (event.key === "/") {
    event.preventDefault();
    barPart("query").focus();
    barPart("query").select();
  } else if (step) document.querySelector(`a[rel=${step}][href]`)?.click();
});
