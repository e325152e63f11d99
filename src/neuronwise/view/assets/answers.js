// A neuron turned up and down: the knob, and what the model says. Pages and notebooks share it.

const times = (value) => String(value).replace("-", "−");

/** The knob at `state` ({ factor, mean }), which it keeps; `moved` is called when it is let go. */
function knob(state, moved) {
  const said = make("output", { "data-part": "factor-said" });
  const slider = make("input", { type: "range", min: -5, max: 5, step: 0.5, "data-part": "factor" });
  const mean = make("input", { type: "checkbox", "data-part": "mean" });
  const show = () => {
    [slider.value, slider.disabled, mean.checked] = [state.factor, state.mean, state.mean];
    said.textContent = times(state.factor);
  };
  slider.addEventListener("input", () => { state.factor = Number(slider.value); show(); });
  slider.addEventListener("change", moved);
  mean.addEventListener("change", () => { state.mean = mean.checked; show(); moved(); });
  show();
  const ticks = make("p", { class: "ticks", "aria-hidden": "true" }, ...["−5", "0: off", "1: as it is", "5"].map((one) => make("span", {}, one)));
  const place = make("div", { class: "knob" }, make("label", {}, "Its activation is multiplied by ", said, slider), ticks,
    make("p", { class: "line-of" }, make("label", {}, mean, " set it to its mean instead")));
  return { place, show };
}

/** The words of a text, those that the first answer lacks marked. */
function marked(text, before) {
  const known = new Set((before ?? text).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
  return text.split(/([\p{L}\p{N}]+)/u).map((piece, index) =>
    (index % 2 && !known.has(piece.toLowerCase()) ? make("mark", {}, piece) : piece));
}

/** How an answer compares with the one before: its words, and how likely the old words still are. */
const beside = ({ text, times: likely }, before) => [text === before ? "the same words" : "",
  likely == null ? "" : `the first answer is ${digits(likely)} times as likely as before`].filter(Boolean).join("; ");

/** One answer in the list: whose it is, its words, and how it compares with the first. `named` makes the name of a neuron. */
function answerItem(answer, { factor, mean }, given, before, named) {
  const { kind, text, neuron: name } = answer;
  const who = kind === "before" ? ["as the model is"]
    : kind === "changed" ? [make("b", {}, name), mean ? " set to its mean" : ` × ${times(factor)}`]
      : [named(name), ", a random neuron of this layer, likewise"];
  return make("li", { class: kind }, make("span", { class: "who" }, ...who),
    make("p", { class: "answer", dir: "auto" }, ...(given ? [make("span", { class: "given" }, `${given} `)] : []),
      ...(text ? marked(text, before) : [make("span", { class: "given" }, "(nothing)")])),
    ...(kind === "before" ? [] : [make("span", { class: "same" }, beside(answer, before))]));
}
