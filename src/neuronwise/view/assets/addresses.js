// Where pages and photos are: in the viewer, or in the folder of files that it exports.

const EXPORTED = document.documentElement.dataset.viewer === "exported";
const path = (id) => id.split("/").map(encodeURIComponent).join("/");
const neuronUrl = (name) => (EXPORTED ? `neuron.html?n=${name}` : `/n/${name}`);
/** A photo of an index; its name where it is not at hand. */
function photoOf(index, { item, name, text }) {
  const absent = () => make("span", { class: "no-photo" }, name);
  if (index.photos === false) return absent();
  const image = make("img", { loading: "lazy", src: photoUrl(index.id, item), alt: text ? "" : name });
  image.addEventListener("error", () => image.replaceWith(absent()), { once: true });
  return image;
}

const photoUrl = (index, item) => (EXPORTED ? `photos/${item}.jpg` : `/photo/${path(index)}?item=${item}`);
