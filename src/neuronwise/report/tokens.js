// Tokens, numbers and elements as text: nothing here ever parses a string of the model's as HTML.

const part = (name) => document.querySelector(`[data-part="${name}"]`);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children); // strings become text nodes
  return element;
}

const MARKS = { " ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥" };

/** A token as nodes in which what cannot be seen (spaces, controls, direction marks) is marked. */
function visible(token) {
  const nodes = [];
  for (const character of token) {
    const unseen = MARKS[character] ?? (/[\p{C}\p{Z}]/u.test(character) ? codePoint(character) : null);
    if (unseen !== null) nodes.push(make("span", { class: "mark" }, unseen));
    else if (typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += character;
    // A combining mark needs something to stand on.
    else nodes.push((/\p{M}/u.test(character) ? "◌" : "") + character);
  }
  return nodes.length ? nodes : [make("span", { class: "mark" }, "empty")];
}

const codePoint = (character) => "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

const tokenElement = (token, name = "chip") =>
  make("bdi", { class: name, title: JSON.stringify(token) }, ...visible(token));

/** Three significant digits, with a true minus sign. */
function digits(value) {
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(1)
    : size >= 100 ? value.toFixed(0) : value === 0 ? "0" : value.toPrecision(3);
  return text.replaceAll("-", "−");
}

const address = ({ layer, expert, unit }) => `L${layer}.${expert == null ? "" : `E${expert}.`}U${unit}`;

/** In the viewer every neuron has a page; a page that is one file has none to lead to. */
const viewer = "viewer" in document.documentElement.dataset;

const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers that keep the clipboard from local files still let a selection be copied.
    const area = make("textarea", { class: "unseen", readonly: "" }, text);
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused?.focus();
  }
  part("status").textContent = `Copied ${text}`;
}
