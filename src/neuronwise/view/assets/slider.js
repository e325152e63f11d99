// The slider in a notebook: a view of the widget in Python, which asks the model.

/** Draws the widget into `el`. One question at a time: what is moved meanwhile is asked when the answer is there. */
function render({ model, el }) {
  const state = { factor: model.get("factor"), mean: model.get("mean") };
  let sent = false;
  const doing = make("p", { class: "doing-here", role: "status" });
  const trouble = make("p", { class: "note", role: "alert" });
  const list = make("ol", { class: "said-list", "aria-live": "polite" });
  const { place, show } = knob(state, send);

  function send() {
    if (sent || (state.factor === model.get("factor") && state.mean === model.get("mean"))) return;
    sent = true;
    doing.textContent = "asking the model …";
    model.set({ ...state });
    model.save_changes();
  }

  function draw() {
    const shown = model.get("shown");
    const [first] = shown.answers;
    list.replaceChildren(...shown.answers.map((one) => answerItem(one, shown, model.get("given"), first.text, (name) => name)));
    doing.textContent = shown.progress ? progressOf(shown.progress) : "";
    trouble.textContent = shown.problem;
    trouble.hidden = !shown.problem;
    if (shown.progress) return;
    sent = false;
    send();
  }

  /** Python turned it. */
  function turned() {
    if (sent) return;
    Object.assign(state, { factor: model.get("factor"), mean: model.get("mean") });
    show();
  }

  const photo = model.get("photo");
  const seen = photo ? [make("img", { src: photo, alt: "The photo that the model is asked about" })] : [];
  el.classList.add("neuronwise-slider");
  el.replaceChildren(make("div", { class: "bench" }, make("div", {}, make("p", { class: "name" }, model.get("neuron")), ...seen, place, doing, trouble), list));
  const heard = { "change:shown": draw, "change:factor": turned, "change:mean": turned };
  for (const [event, listener] of Object.entries(heard)) model.on(event, listener);
  draw();
  return () => { for (const [event, listener] of Object.entries(heard)) model.off(event, listener); };
}

export default { render };
