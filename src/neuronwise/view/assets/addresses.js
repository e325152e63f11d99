// Where pages and photos are: in the viewer, or in the folder of files that it exports.

const EXPORTED = document.documentElement.dataset.viewer === "exported";
const path = (id) => id.split("/").map(encodeURIComponent).join("/");
const neuronUrl = (name) => (EXPORTED ? `neuron.html?n=${name}` : `/n/${name}`);
const photoUrl = (index, item) => (EXPORTED ? `photos/${item}.jpg` : `/photo/${path(index)}?item=${item}`);
