// Save what is seen as one file: HTML without scripts, SVG, or PNG. Everything is inside, and it is the view as it is now.

const NO_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g; // characters that a drawing must not have
// What only asks, or asked nothing yet.
const LEFT_OUT = "script, noscript, [hidden], .steps, .copy, .more, .zone .line-of, .bench button, .star[aria-pressed=false], " +
  "[data-part=live]:not(:has(.said-list li, .fires:not([hidden]))), [data-part=writing]:has(button), [data-part=noted]:has(textarea:empty)";
const DARK = "@media (prefers-color-scheme: dark)";

const asData = (blob) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(blob);
});

/** At most twice as wide as it is seen: screens show no more. */
function shrunk(picture, seen, kind) {
  const by = Math.min(1, (2 * seen) / picture.width);
  const canvas = make("canvas", { width: Math.max(1, Math.round(picture.width * by)), height: Math.max(1, Math.round(picture.height * by)) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL(kind, 0.85);
}

/** An image as data; null where it cannot be loaded. */
async function imageData(image) {
  const own = image.src.startsWith("data:");
  if (own && !image.src.startsWith("data:image/jpeg")) return image.src;
  const loaded = own ? null : await fetch(image.src);
  if (loaded && !loaded.ok) return null;
  const blob = await loaded?.blob();
  if (blob && blob.type !== "image/jpeg") return asData(blob); // a figure
  const before = own ? image.src : await asData(blob);
  const picture = await createImageBitmap(blob ?? image).catch(() => null);
  const after = picture ? shrunk(picture, image.clientWidth, "image/jpeg") : before;
  return after.length < before.length ? after : before;
}

/** A copy of the page's content in which nothing is left to be loaded or run. */
async function frozen() {
  const source = document.getElementById("content");
  const copied = source.cloneNode(true);
  const pairs = (selector) => {
    const there = [...source.querySelectorAll(selector)];
    return [...copied.querySelectorAll(selector)].map((copy, index) => [copy, there[index]]);
  };
  for (const [copy, original] of pairs("img")) {
    const data = original.src ? await imageData(original) : null;
    if (data) copy.src = data;
    else copy.remove();
    copy.removeAttribute("loading");
  }
  for (const [copy, original] of pairs("canvas")) {
    const image = make("img", { src: shrunk(original, original.clientWidth, "image/webp"), alt: "" });
    image.style.cssText = `${original.style.cssText}; position: absolute; max-width: none`;
    if (original.hidden) copy.remove();
    else copy.replaceWith(image);
  }
  for (const [copy, original] of pairs(".stage")) copy.style.width = `${original.clientWidth}px`; // no window to fit into
  for (const [copy, original] of pairs("input, textarea, select")) {
    if (original.type === "checkbox") copy.toggleAttribute("checked", original.checked);
    else if (original.localName === "textarea") copy.textContent = original.value;
    else if (original.localName === "select") [...copy.options].forEach((one, at) => one.toggleAttribute("selected", original.options[at].selected));
    else copy.setAttribute("value", original.value);
    copy.setAttribute("disabled", "");
  }
  for (const link of copied.querySelectorAll("a[href]")) if (!link.getAttribute("href").startsWith("#")) link.removeAttribute("href");
  for (const part of copied.querySelectorAll(LEFT_OUT)) part.remove();
  return copied;
}

async function style() {
  const sheet = document.querySelector("link[rel=stylesheet]");
  return (await fetch(sheet.href)).text();
}

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/** Put together as text: in a document of this page's, its rules would refuse the style. */
async function asPage() {
  const head = [make("meta", { charset: "utf-8" }), make("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }),
    make("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
    make("meta", { name: "color-scheme", content: "light dark" }), make("title", {}, document.title)];
  const page = ["<!doctype html>", '<html lang="en"><head>', ...head.map((one) => one.outerHTML), `<style>${await style()}</style>`,
    `</head><body>${(await frozen()).outerHTML}</body></html>`].join("\n");
  return new Blob([page], { type: "text/html" });
}

/** The page inside an SVG, in the colors that are seen now. */
async function asDrawing() {
  const [width, height] = [document.documentElement.clientWidth, document.getElementById("content").scrollHeight + 40];
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const body = document.createElement("body");
  body.setAttribute("xmlns", "http://www.w3.org/1999/xhtml");
  body.style.minHeight = `${height}px`;
  body.append(make("style", {}, (await style()).replaceAll(DARK, dark ? "@media all" : "@media not all")), await frozen());
  const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) root.setAttribute(name, value);
  const inside = document.createElementNS("http://www.w3.org/2000/svg", "foreignObject");
  for (const [name, value] of Object.entries({ width: "100%", height: "100%" })) inside.setAttribute(name, value);
  inside.append(body);
  root.append(inside);
  return { drawing: new Blob([new XMLSerializer().serializeToString(root).replace(NO_XML, "\ufffd")], { type: "image/svg+xml" }), width, height };
}

async function asPicture() {
  const { drawing, width, height } = await asDrawing();
  const image = new Image();
  image.src = await asData(drawing); // from a blob's address the canvas could not be read again
  await image.decode();
  const scale = Math.min(2, 16000 / height);
  const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const KINDS = { html: asPage, svg: async () => (await asDrawing()).drawing, png: asPicture };

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", async () => {
    button.closest("details").open = false;
    working("saving what you see …");
    try {
      const url = URL.createObjectURL(await KINDS[button.dataset.save]());
      const name = document.title.replace(/ · neuronwise$/, "").replace(/[^\p{L}\p{N}.-]+/gu, "-").slice(0, 60);
      make("a", { href: url, download: `${name || "neuronwise"}.${button.dataset.save}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      working(null);
    } catch (error) {
      working(`This could not be saved: ${error.message}`);
    }
  });
}
