// Labels of neurons in words, and what they are worth.

const share = (value) => value.toFixed(2).replace(/^0/, "");

/** Whether a label tells the held-out photos and texts on which a neuron fires. */
function worth({ detection: [mean, low, high], control }) {
  const beside = control === null ? "" : `, another neuron's label ${share(control)}`;
  return `${low > 0.5 ? "It tells others on which it fires" : "It tells others on which it fires no better than chance"}: ${share(mean)} [${share(low)}, ${share(high)}] (.5 is chance${beside}).`;
}

/** A label in a list of them. */
function labelled(label) {
  return make("li", {}, make("a", { class: "address", href: neuronUrl(label.neuron) }, label.neuron), make("span", { dir: "auto" }, label.text),
    make("span", { class: "number", title: worth(label) }, `${share(label.detection[0])} [${share(label.detection[1])}, ${share(label.detection[2])}]`));
}
