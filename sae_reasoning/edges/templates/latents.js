"use strict";
// The table of latents: filters, order, search and the walk through it. Text from models and data
// goes into the page as text only (textContent), never as markup.
const listings = JSON.parse(document.getElementById("rows").textContent).map((row, index) => ({
  ...row, index, label_base: row.labels.base || "", label_rl: row.labels.rl || "",
}));
const notes = JSON.parse(document.getElementById("notes").textContent);
const byId = (id) => document.getElementById(id);
const listName = (row) => row.shortlist.replace("_", " ");
const state = { sort: "", down: false, shown: [], chosen: -1 };

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}
function figure(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.0005) return value.toExponential(0).replace("-", "−");
  // As number() of texts.py: four significant figures at most.
  const rounded = Number(value.toPrecision(4));
  const size = Math.abs(rounded);
  if (size >= 1e6) return value.toExponential(2).replace("+", "").replace("-", "−");
  const places = size < 1 ? 4 : Math.max(3 - Math.floor(Math.log10(size)), 0);
  return rounded.toLocaleString("en", { minimumFractionDigits: Math.min(digits, places), maximumFractionDigits: Math.min(digits, places) }).replace("-", "−");
}
const interval = (low, high, digits = 3) =>
  (low === null || high === null || low === undefined) ? "" : ` [${figure(low, digits)}, ${figure(high, digits)}]`;

function fill(id, values, say = (value) => value) {
  for (const value of values) {
    const option = element("option", "", say(value));
    option.value = value;
    byId(id).append(option);
  }
}
const distinct = (get) => [...new Set(listings.flatMap(get))].filter((value) => value !== "");
fill("by-behaviour", distinct((row) => [row.behaviour]));
fill("by-shortlist", distinct((row) => [row.shortlist]), (shortlist) => listName({ shortlist }));
fill("by-layer", distinct((row) => [row.layer]).sort((a, b) => a - b));
fill("by-label", distinct((row) => [row.label_base, row.label_rl]).sort());

function passes(row) {
  const wanted = (id, ...values) => !byId(id).value || values.map(String).includes(byId(id).value);
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [`${row.layer}/${row.latent}`, row.behaviour, listName(row), row.label_base, row.label_rl, row.status]
    .join(" ").toLowerCase();
  return wanted("by-behaviour", row.behaviour) && wanted("by-shortlist", row.shortlist)
    && wanted("by-layer", row.layer) && wanted("by-label", row.label_base, row.label_rl)
    && (!byId("by-review").value || (reviewed(row).label || "none") === byId("by-review").value)
    && words.every((word) => text.includes(word));
}
function compare(a, b) {
  const [x, y] = state.sort === "review" ? [reviewed(a).label, reviewed(b).label] : [a[state.sort], b[state.sort]];
  if (x === y) return a.index - b.index;
  if (x === null) return 1;
  if (y === null) return -1;
  return (x < y ? -1 : 1) * (state.down ? -1 : 1);
}
function draw() {
  state.shown = listings.filter(passes);
  if (state.sort) state.shown.sort(compare);
  const rows = state.shown.map((row) => {
    const link = element("a", "", `${row.layer}/${row.latent}`);
    link.href = `#${row.index}`;
    link.tabIndex = -1;
    const line = element("tr", "",
      element("td", "", row.place), element("td", "", link), element("td", "", row.behaviour),
      element("td", "", listName(row)), element("td", "num", figure(row.auroc)),
      element("td", "num", row.firing_rate === null ? "–" : `${figure(100 * row.firing_rate, 1)} %`),
      element("td", "", row.label_base || "–"), element("td", "", row.label_rl || "–"),
      element("td", "", reviewed(row).label || "–"));
    line.dataset.index = row.index;
    line.tabIndex = 0;
    line.setAttribute("aria-selected", String(row.index === state.chosen));
    return line;
  });
  byId("table").tBodies[0].replaceChildren(...rows);
  byId("count").textContent = `${state.shown.length} of ${listings.length} entries of the lists`;
  for (const head of document.querySelectorAll("#table th")) {
    const own = head.querySelector("button").dataset.sort === state.sort;
    head.setAttribute("aria-sort", own ? (state.down ? "descending" : "ascending") : "none");
  }
}
function go(index) {
  if (location.hash !== `#${index}`) history.replaceState(null, "", `#${index}`);
  state.chosen = index;
  for (const line of byId("table").tBodies[0].rows) {
    const own = Number(line.dataset.index) === index;
    line.setAttribute("aria-selected", String(own));
    if (own) line.scrollIntoView({ block: "nearest" });
  }
  openLatent(listings[index]);
}
function step(by) {
  if (!state.shown.length) return;
  const here = state.shown.findIndex((row) => row.index === state.chosen);
  const next = here < 0 ? 0 : Math.min(Math.max(here + by, 0), state.shown.length - 1);
  go(state.shown[next].index);
}
function back() {
  document.querySelector(".panes").classList.remove("open");
  const line = byId("table").querySelector('tr[aria-selected="true"]');
  if (line) line.focus();
}

byId("filters").addEventListener("input", draw);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const button of document.querySelectorAll("#table th button")) {
  button.addEventListener("click", () => {
    const name = button.dataset.sort;
    const numbers = ["auroc", "firing_rate"].includes(name);
    state.down = state.sort === name ? !state.down : numbers;
    state.sort = name;
    draw();
  });
}
byId("table").tBodies[0].addEventListener("click", (event) => {
  const line = event.target.closest("tr");
  event.preventDefault();
  go(Number(line.dataset.index));
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { event.target.blur(); back(); return; }
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && !["checkbox", "radio"].includes(event.target.type);
  if (typing) return;
  const line = event.target.closest && event.target.closest("#table tbody tr");
  const scrolls = event.target.closest && event.target.closest("#one");
  if (event.key === "j" || (event.key === "ArrowDown" && !scrolls)) { event.preventDefault(); step(1); }
  else if (event.key === "k" || (event.key === "ArrowUp" && !scrolls)) { event.preventDefault(); step(-1); }
  else if (/^[0-3]$/.test(event.key)) callByKey(event.key);
  else if (event.key === "v" && byId("values")) byId("values").click();
  else if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  else if (event.key === "Enter" && line) { event.preventDefault(); go(Number(line.dataset.index)); byId("one").focus(); }
});
window.addEventListener("DOMContentLoaded", () => {
  draw();
  const asked = location.hash.slice(1);
  if (/^\d+$/.test(asked) && listings[Number(asked)]) go(Number(asked));
});
