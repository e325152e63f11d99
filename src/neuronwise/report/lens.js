// The lens: log p of the chosen word in the stream behind each layer, by token of the sequence. The last layer is on top.

const LENS_FLOOR = -15; // nats: anything less likely looks the same

function drawLens({ word, lens }) {
  part("lens").hidden = !lens;
  if (!lens) return;
  const { log_probs: values, ranks, likeliest, tokens } = lens;
  const [layers, columns] = [values.length, tokens.length];
  const floor = Math.max(LENS_FLOOR, Math.min(...values.flat()));
  const svg = part("lens-cells");
  const element = (name, attributes) => {
    const made = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const cells = values.flatMap((row, layer) => row.map((value, column) => element("rect", {
    x: column, y: layers - 1 - layer, width: 1, height: 1, class: "cell", "data-layer": layer, "data-column": column,
    "fill-opacity": Math.max(0, 1 - value / (floor || -1)).toFixed(3) })));
  const dots = ranks.flatMap((row, layer) => row.flatMap((rank, column) => (rank > 1 ? [] : [element("rect", {
    x: column + 0.36, y: layers - 1 - layer + 0.3, width: 0.28, height: 0.4, class: "first" })])));
  const cursor = element("rect", { width: 1, height: 1, class: "cursor" });
  svg.setAttribute("viewBox", `0 0 ${columns} ${layers}`);
  svg.setAttribute("aria-label", `log p of ${word.trim()} in ${layers} layers at ${columns} tokens; arrow keys read it`);
  svg.replaceChildren(...cells, ...dots, cursor);
  part("lens-scroll").style.setProperty("--columns", columns);
  part("lens-tokens").replaceChildren(...tokens.map((token) => make("span", {}, ...visible(token))));
  part("lens-top").textContent = layers - 1;
  part("lens-low").textContent = `${digits(floor)}${floor === LENS_FLOOR ? " or less" : ""}`;

  let at = [layers - 1, columns - 1];
  const read = (layer, column) => {
    at = [layer, column];
    cursor.setAttribute("x", column);
    cursor.setAttribute("y", layers - 1 - layer);
    part("lens-readout").replaceChildren(`Layer ${layer} at `, tokenElement(tokens[column], "inline"),
      `: log p ${digits(values[layer][column])}, rank ${ranks[layer][column]}`,
      ...(ranks[layer][column] > 1 ? ["; likeliest ", tokenElement(likeliest[layer][column], "inline")] : []));
  };
  svg.onpointermove = svg.onpointerdown = ({ target }) => {
    if (target.matches(".cell")) read(Number(target.dataset.layer), Number(target.dataset.column));
  };
  svg.onkeydown = (event) => {
    const [up, right] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [];
    if (up === undefined) return;
    event.preventDefault();
    read(Math.min(Math.max(at[0] + up, 0), layers - 1), Math.min(Math.max(at[1] + right, 0), columns - 1));
  };
  read(...at);
  part("lens-scroll").scrollLeft = part("lens-scroll").scrollWidth; // the token that predicts the word is the last
}
