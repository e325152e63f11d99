// Maps: a grid of numbers, drawn over the part of the photo that the model saw.

const FIELD = 320; // points of the drawn field along its longer side: smooth to the eye, a millisecond to compute
const CANVAS = 960; // pixels of the canvas along its longer side
// Matplotlib's inferno at 0, 1/8 … 1: lightness rises evenly, also for color-blind eyes.
const INFERNO = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9],
  [249, 203, 53], [252, 255, 164]];

function color(share) {
  const place = share * (INFERNO.length - 1);
  const below = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[below].map((channel, k) => channel + (place - below) * (INFERNO[below + 1][k] - channel));
}

// Four bytes for each of 256 steps. The coldest cells let the photo through, so that it stays recognizable.
const PALETTE = Uint8ClampedArray.from(Array.from({ length: 256 }, (_, step) =>
  [...color(step / 255), Math.min(255, 1.2 * step)]).flat());

/** Bilinear, with cell centers where they lie in the photo (half a cell from the edge). */
function upsample({ cells, steps }, rows, columns, width, height) {
  const grid = steps ?? Uint8Array.from(atob(cells), (character) => character.charCodeAt(0));
  const field = new Float32Array(width * height);
  const across = Array.from({ length: width }, (_, x) => between(x, width, columns));
  for (let y = 0; y < height; y++) {
    const [up, down, v] = between(y, height, rows);
    for (let x = 0; x < width; x++) {
      const [left, right, u] = across[x];
      const upper = grid[up * columns + left] * (1 - u) + grid[up * columns + right] * u;
      const lower = grid[down * columns + left] * (1 - u) + grid[down * columns + right] * u;
      field[y * width + x] = upper * (1 - v) + lower * v;
    }
  }
  return field;
}

function between(index, points, cells) {
  const place = Math.min(Math.max(((index + 0.5) / points) * cells - 0.5, 0), cells - 1);
  const first = Math.floor(place);
  return [first, Math.min(first + 1, cells - 1), place - first];
}

/** A map of evidence in the form of heat; where less than 0 speaks against the word, that is not drawn. */
function evidenceMap({ grid, box, photo: size, signed }) {
  const values = grid.flat();
  const low = signed ? 0 : Math.min(...values);
  const high = Math.max(low, ...values);
  const steps = Uint8Array.from(values, (value) => Math.round(255 * Math.max(0, value - low) / ((high - low) || 1)));
  return { rows: grid.length, columns: grid[0].length, box: box.map((edge, k) => edge / size[k % 2]),
    mean: { low, high, steps } };
}

function drawHeat(canvas, heat, grid, opacity, contour, downward) {
  const [left, top, right, bottom] = heat.box;
  Object.assign(canvas.style, {
    left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
  });
  const stage = canvas.parentElement;
  const photo = stage.querySelector("img");
  stage.classList.toggle("cropped", left > 0.01 || top > 0.01 || right < 0.99 || bottom < 0.99);
  const shape = ((right - left) * photo.width) / ((bottom - top) * photo.height);
  const sides = (longer) => [Math.max(2, Math.round(longer * Math.min(1, shape))),
    Math.max(2, Math.round(longer * Math.min(1, 1 / shape)))];
  [canvas.width, canvas.height] = sides(CANVAS); // setting them also clears
  if (grid.low === grid.high) return;
  const [width, height] = sides(FIELD);
  const field = upsample(grid, heat.rows, heat.columns, width, height);
  if (downward) field.forEach((value, k) => { field[k] = 255 - value; });
  const context = canvas.getContext("2d");
  context.globalAlpha = opacity;
  context.drawImage(painted(field, width, height), 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  if (contour) drawContour(context, field, width, height, percentile(field, 0.95));
}

function painted(field, width, height) {
  const image = new ImageData(width, height);
  field.forEach((value, k) => {
    const step = 4 * Math.round(value);
    for (let c = 0; c < 4; c++) image.data[4 * k + c] = PALETTE[step + c];
  });
  const small = make("canvas", { width, height });
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

function percentile(field, share) {
  const sorted = Float32Array.from(field).sort();
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below] + (place - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
}

/** Marching squares: between four neighboring points, a line through the edges that the level crosses. */
function drawContour(context, field, width, height, level) {
  const { canvas } = context;
  context.beginPath();
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const at = y * width + x;
      const inside = (field[at] > level) + (field[at + 1] > level) + (field[at + width] > level)
        + (field[at + width + 1] > level);
      if (inside % 4 === 0) continue; // most of them
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const values = corners.map(([cx, cy]) => field[cy * width + cx] - level);
      const crossed = [];
      for (let k = 0; k < 4; k++) {
        const [here, next] = [values[k], values[(k + 1) % 4]];
        if ((here > 0) === (next > 0)) continue;
        const share = here / (here - next);
        const [a, b] = [corners[k], corners[(k + 1) % 4]];
        crossed.push([0, 1].map((d) => a[d] + share * (b[d] - a[d]) + 0.5));
      }
      crossed.forEach(([cx, cy], k) =>
        context[k % 2 ? "lineTo" : "moveTo"]((cx * canvas.width) / width, (cy * canvas.height) / height));
    }
  }
  context.lineCap = "round";
  for (const [thickness, stroke] of [[6, "rgb(0 0 0 / 55%)"], [2.5, "white"]]) { // seen on light and on dark photos
    Object.assign(context, { lineWidth: thickness, strokeStyle: stroke });
    context.stroke();
  }
}
