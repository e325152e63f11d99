// Find: a photo or a text in, the page of the finding out.

const { live } = told("find");
let given = null;

part("wanted").value = kept("word");
part("go").disabled = true;
takeInput(part("given"), (now) => {
  given = now;
  part("go").disabled = !now;
  keep({ text: now?.text });
}, { text: kept("text") });

async function find() {
  if (!given) return;
  problem(null);
  part("go").disabled = true;
  try {
    const { href } = await ask("find", { ...given, word: part("wanted").value.trim() || null });
    location.href = href;
  } catch (error) {
    problem(error);
  } finally {
    part("go").disabled = !given;
  }
}

part("go").addEventListener("click", find);
part("wanted").addEventListener("input", () => keep({ word: part("wanted").value.trim() }));
part("wanted").addEventListener("keydown", (event) => event.key === "Enter" && find());
if (!live) problem(new Error("This viewer has no model; start it with --model, such as --model builtin."));
