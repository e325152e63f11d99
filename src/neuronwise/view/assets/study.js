// A study: its tables sort by a click on a heading, and its cases open one by one.

const study = JSON.parse(document.getElementById("study-json").textContent);
const AT_ONCE = 50;

/** The number that a cell begins with, with its true minus sign; null for text. */
function numberOf(cell) {
  const found = cell.textContent.trim().replaceAll("−", "-").match(/^-?(\d+\.?\d*|\.\d+)(e-?\d+)?/i);
  return found ? Number(found[0]) : null;
}

function sortBy(table, column, down) {
  const heading = table.tHead.rows[0].cells[column];
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [a, b].map((row) => numberOf(row.cells[column]));
    const order = x === null || y === null ? (y !== null) - (x !== null) || a.cells[column].textContent.localeCompare(b.cells[column].textContent) : y - x;
    return down ? order : -order;
  });
  table.tBodies[0].append(...rows);
}

const tables = [...document.querySelectorAll("table")];
tables.forEach((table, number) => [...table.tHead.rows[0].cells].forEach((heading, column) => {
  const button = make("button", { type: "button", class: "sort" }, heading.textContent);
  heading.replaceChildren(button);
  button.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") !== "descending";
    sortBy(table, column, down);
    keep({ sort: `${number}.${column}.${down ? "down" : "up"}` });
  });
}));
const [sorted, by, way] = kept("sort").split(".");
if (tables[sorted]?.tHead.rows[0].cells[by]) sortBy(tables[sorted], Number(by), way === "down");

/** A value of a case as nested lists; texts as they are. */
function valueNode(value) {
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return document.createTextNode("none");
    return make("dl", {}, ...entries.flatMap(([name, one]) => [make("dt", {}, name), make("dd", {}, valueNode(one))]));
  }
  return make("span", { dir: "auto" }, typeof value === "number" && !Number.isInteger(value) ? digits(value) : String(value ?? "–"));
}

function caseNode(line) {
  const summary = make("summary", {}, make("b", {}, String(line.id)), " ", make("small", {}, line.status === "failed" ? `failed: ${line.reason}` : ""));
  const details = make("details", { class: line.status === "failed" ? "failed" : "" }, summary);
  details.addEventListener("toggle", () => { // filled when it is opened: cases are long
    if (details.open && details.children.length === 1) details.append(valueNode(line));
  });
  return details;
}

let shown = AT_ONCE;
function drawCases() {
  const words = part("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fitting = study.cases.filter((line) => !words.length || words.every((word) => JSON.stringify(line).toLowerCase().includes(word)));
  part("cases").replaceChildren(...fitting.slice(0, shown).map(caseNode));
  part("more").hidden = fitting.length <= shown;
  part("count").textContent = `${fitting.length} of ${study.count}`;
}
part("filter").value = kept("filter");
part("filter").addEventListener("input", () => {
  shown = AT_ONCE;
  keep({ filter: part("filter").value });
  drawCases();
});
part("more").addEventListener("click", () => { shown += AT_ONCE; drawCases(); });
drawCases();
