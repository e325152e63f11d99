// What the viewer adds to the page of a finding, where the run is still in memory: the chosen word's circuit and layers.

const { found } = told("bar");

/** A button that asks about the chosen word. */
function asking(label, path, answered) {
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    const concept = Number(document.querySelector(".word[aria-current]")?.dataset.concept ?? 0);
    const trouble = part("more-trouble");
    trouble.hidden = button.disabled = true;
    try {
      answered(await ask(path, { found, concept }), concept);
    } catch (error) {
      problem(error, trouble);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

if (found) {
  part("token").after(make("p", { class: "line-of" },
    asking("Trace the circuit of this word", "circuit", ({ href }) => { location.href = href; }),
    asking("Read it layer by layer", "lens", ({ lens }, concept) => {
      dispatchEvent(new CustomEvent("lens", { detail: { concept, lens } }));
      part("lens").scrollIntoView({ block: "nearest", behavior: "smooth" });
    })), make("p", { class: "note", role: "alert", "data-part": "more-trouble", hidden: "" }));
}
