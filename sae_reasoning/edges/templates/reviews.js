"use strict";
// A reviewer's labels: kept by the browser under the shortlists' fingerprint, exported and imported
// as JSON. Imported files are checked and shown as text only.
const LABELS = ["real", "lexical", "unclear"];
const place_kept = `sae_reasoning.reviews.${notes.pair}.${notes.rank}`;
const review_key = (row) => `${row.layer}/${row.latent}/${row.behaviour}`;
let reviews = (() => {
  try { return new Map(Object.entries(JSON.parse(localStorage.getItem(place_kept)) || {})); } catch (_) { return new Map(); }
})();
const reviewed = (row) => reviews.get(review_key(row)) || { label: "", note: "" };

function keep(row, change) {
  const now = { ...reviewed(row), ...change };
  if (now.label || now.note) reviews.set(review_key(row), now); else reviews.delete(review_key(row));
  save();
}
function save() {
  try { localStorage.setItem(place_kept, JSON.stringify(Object.fromEntries(reviews))); }
  catch (_) { byId("review-said").textContent = "This browser stores no labels: export before you leave."; }
  draw();
}
function reviewBox(row) {
  const box = element("fieldset", "review", element("legend", "", `Your label, for ${row.behaviour}`));
  for (const [number, label] of [...LABELS, ""].entries()) {
    const input = element("input", "");
    input.type = "radio";
    input.name = "label";
    input.value = label;
    input.checked = reviewed(row).label === label;
    input.addEventListener("change", () => keep(row, { label }));
    box.append(element("label", "", input, ` ${label || "none"} (${(number + 1) % 4})`));
  }
  const note = element("textarea", "");
  note.rows = 1;
  note.maxLength = 2000;
  note.placeholder = "note";
  note.setAttribute("aria-label", "note");
  note.value = reviewed(row).note;
  note.addEventListener("input", () => keep(row, { note: note.value }));
  box.append(note);
  return box;
}
function callByKey(key) {
  const input = document.querySelectorAll('#one input[name="label"]')[(Number(key) + 3) % 4];
  if (input) input.click();
}
function exported() {
  const rows = listings.filter((row, i) => reviews.has(review_key(row)) && listings.findIndex((r) => review_key(r) === review_key(row)) === i);
  return { schema_version: 2, pair: notes.pair, rank: notes.rank, reviewer: byId("reviewer").value.trim(),
    reviews: rows.map((row) => ({ layer: row.layer, latent: row.latent, behaviour: row.behaviour, ...reviewed(row) })) };
}
function imported(content) {
  if (content.schema_version !== 2 || !Array.isArray(content.reviews)) throw new Error("it is no export of this page");
  if (content.rank !== notes.rank) throw new Error("it reviews other shortlists");
  const known = new Set(listings.map(review_key));
  const found = content.reviews.filter((one) => known.has(review_key(one)) && ["", ...LABELS].includes(one.label));
  for (const one of found) reviews.set(review_key(one), { label: one.label, note: String(one.note || "").slice(0, 2000) });
  if (content.reviewer) byId("reviewer").value = String(content.reviewer);
  save();
  if (state.chosen >= 0) go(state.chosen);
  return found.length;
}
byId("export").addEventListener("click", () => {
  const link = element("a", "");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(exported(), null, 1)], { type: "application/json" }));
  link.download = `reviews_${byId("reviewer").value.trim().replace(/\W+/g, "_") || "unnamed"}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
});
byId("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  try { byId("review-said").textContent = `${imported(JSON.parse(await file.text()))} labels imported.`; }
  catch (error) { byId("review-said").textContent = `${file.name} can't be imported: ${error.message}.`; }
  event.target.value = "";
});
