// What the viewer adds to the page of a finding: the chosen word's circuit and layers, where the run is still in memory; the
// way to the finding over several photos of which it is one.

const { found, together } = told("bar");

if (together) {
  const step = (id, rel, text, key) => (id === null ? [] : [make("a", { rel, href: `/finding/${path(id)}` }, `${text} `, make("kbd", {}, key)), " "]);
  document.querySelector(".said").prepend(make("p", { class: "line-of" }, make("a", { href: `/finding/${path(together.id)}` }, together.title),
    make("span", { class: "steps" }, ...step(together.before, "prev", "previous", "["), ...step(together.after, "next", "next", "]"))));
}

/** A button that asks about the chosen word. */
function asking(label, name, answered) {
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    const concept = Number(document.querySelector(".word[aria-current]")?.dataset.concept ?? 0);
    const trouble = part("more-trouble");
    trouble.hidden = button.disabled = true;
    try {
      answered(await ask(name, { found, concept }), concept);
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
