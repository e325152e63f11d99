// What the viewer adds to the page of a finding: the circuit of the chosen word, where the run is still in memory.

const { found } = told("bar");

if (found) {
  const button = make("button", { type: "button" }, "Trace the circuit of this word");
  const trouble = make("p", { class: "note", role: "alert", hidden: "" });
  part("token").after(make("p", { class: "line-of" }, button), trouble);
  button.addEventListener("click", async () => {
    const chosen = document.querySelector(".word[aria-current]");
    button.disabled = true;
    try {
      const { href } = await ask("circuit", { found, concept: Number(chosen?.dataset.concept ?? 0) });
      location.href = href;
    } catch (error) {
      problem(error, trouble);
    } finally {
      button.disabled = false;
    }
  });
}
