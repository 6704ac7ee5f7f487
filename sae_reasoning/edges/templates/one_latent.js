"use strict";
// One latent: its file is a script beside the page, as pages from disk may load no other data.
const SIMILARITY = { cosine: "decoder rows: cosine", correlation: "tokens: r", words: "words: rank r" };
const READERS = { base: "base reads", rl: "RL model reads" };
const kept = new Map();
let wanted = null;

function openLatent(row) {
  wanted = row;
  if (kept.has(row.name)) { drawLatent(row, kept.get(row.name)); return; }
  const script = document.createElement("script");
  script.src = `latents/${row.name}.js`;
  script.onerror = () => byId("one").replaceChildren(
    element("p", "missing", `latents/${row.name}.js is missing from the folder of this page; keep the folder whole, or run make report again.`));
  document.head.append(script);
}
function showLatent(record) {
  kept.set(record.name, record);
  if (wanted && wanted.name === record.name) drawLatent(wanted, record);
}
function table(columns, rows, numeric = []) {
  const head = element("tr", "", ...columns.map((name, i) => element("th", numeric.includes(i) ? "num" : "", name)));
  const body = rows.map((cells) => element("tr", "", ...cells.map((cell, i) =>
    cell instanceof Node && cell.tagName === "TD" ? cell : element("td", numeric.includes(i) ? "num" : "", cell))));
  return element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...body)));
}
function titled(title, lead, ...children) {
  const parts = [element("h3", "", title)];
  if (lead) parts.push(element("p", "small", lead));
  return element("section", "", ...parts, ...children);
}
const whole = (text) => element("td", "whole", text);
const outcome = (one) => element("td", `whole outcome-${one.outcome.replace(/[^a-z]/g, "-")}`, one.outcome);
function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawLatent(row, record) {
  const one = byId("one");
  const step_to = (text, by) => {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => step(by));
    return button;
  };
  const to_table = element("button", "", "Table");
  to_table.id = "back";
  to_table.type = "button";
  to_table.addEventListener("click", back);
  const parts = [
    element("div", "steps", to_table, step_to("Previous", -1), step_to("Next", 1)),
    element("h2", "", `Latent ${record.latent} of layer ${record.layer}`),
    listed(record),
    reviewBox(row),
  ];
  if (row.reviewers) parts.push(element("p", "small", `Reviewers: ${row.reviewers}`));
  if (record.examples) parts.push(examples(record));
  parts.push(grid(record));
  if (record.histogram) parts.push(histogram(record));
  if (record.output) parts.push(outputs(record));
  parts.push(edits(record), baselines(record), attacks(record), neighbours(record), matched(record));
  one.replaceChildren(...parts);
  document.querySelector(".panes").classList.add("open");
  if (getComputedStyle(document.querySelector(".list")).display === "none") window.scrollTo(0, 0);
}

function listed(record) {
  const labels = (listing) => Object.entries(listing.labels).map(([who, name]) => `${name} (${who})`).join(", ") || "–";
  return table(["list", "behaviour", "#", "AUROC on report", "spans", "label", "of the behaviour"],
    record.listings.map((l) => [listName(l), l.behaviour, l.place, whole(figure(l.auroc) + interval(l.low, l.high)), l.n, labels(l), l.status]));
}

function markedBehaviours(record) {
  return [...new Set(record.examples.flatMap((e) => e.marks.map((mark) => mark.behaviour)))].sort();
}
function side(example, reader, most, order, listed_for) {
  const text = element("div", "text");
  if (example.is_cut[0]) text.append("… ");
  const values = example.values[reader] || {};
  example.tokens.forEach((token, i) => {
    const piece = element("bdi", "", token);
    const value = values[i];
    const mark = example.marks.find((m) => m.first <= i && i < m.last);
    if (mark) {
      piece.classList.add("marked", `m${order.indexOf(mark.behaviour) % 6}`);
      if (mark.first === i && listed_for.has(mark.behaviour)) {
        text.append(element("sup", `m${order.indexOf(mark.behaviour) % 6}`, mark.behaviour));
      }
    }
    if (value !== undefined) {
      piece.dataset.value = value;
      const strength = Math.max(0.12, Math.min(0.75, 0.75 * value / most));
      piece.style.backgroundColor = `rgba(var(--hit${reader === "rl" ? "-rl" : ""}), ${strength.toFixed(2)})`;
    }
    piece.title = `${reader}: ${value === undefined ? "0" : figure(value)}${mark ? `; ${mark.behaviour}` : ""}`;
    if (i === example.chosen) piece.classList.add("chosen");
    text.append(piece);
  });
  if (example.is_cut[1]) text.append(" …");
  const peak = Math.max(0, ...Object.values(values));
  return element("div", "side", element("div", "who", `${READERS[reader]} (highest here ${figure(peak, 2)})`), text);
}
function examples(record) {
  const order = markedBehaviours(record);
  const most = Math.max(1e-9, ...record.histogram.edges);
  const key = element("ul", "key", ...order.map((name, i) => element("li", `m${i % 6}`, element("i", `m${i % 6}`), name)));
  const listed_for = new Set(record.listings.map((listing) => listing.behaviour));
  const box = element("input", "");
  box.type = "checkbox";
  box.id = "values";
  box.checked = byId("one").classList.contains("values");
  box.addEventListener("change", () => byId("one").classList.toggle("values", box.checked));
  const parts = [key, element("label", "small", box, " write values into the text (key v)")];
  for (const band of [...new Set(record.examples.map((e) => e.band))]) {
    const own = record.examples.filter((e) => e.band === band);
    const shown = own.map((e) => {
      const asked = element("details", "", element("summary", "", `${e.trace}, written by ${e.writer}`), element("bdi", "small", e.prompt));
      return element("div", "example", asked, element("div", "sides", ...Object.keys(READERS).map((reader) => side(e, reader, most, order, listed_for))));
    });
    const title = band === "highest" ? `Highest activations, one a problem (n = ${own.length})` : `From the ${band} quarter of active values, at random (n = ${own.length})`;
    parts.push(element("h4", "", title), ...shown);
  }
  if (!record.examples.length) parts.push(element("p", "missing", "It never fires on the report split in the RL reader."));
  return titled("Texts", "Report split. Shade is activation, in units of the residual stream (hover over a token for its value, or write values into the text); the underline marks a behaviour that the annotator found, named where the latent is listed for it; the framed token chose the example.", ...parts);
}

function grid(record) {
  const rows = record.scores.map((s) => [s.behaviour, s.reader, s.writer, whole(figure(s.span_auroc) + interval(s.span_auroc_low, s.span_auroc_high)), `${s.n_pos} / ${s.n_neg}`, figure(s.onset_auroc), `${s.n_onset_pos} / ${s.n_onset_neg}`, s.num_problems]);
  return titled("AUROC in every reader and on every writer's text", "Report split, 95 % intervals over problems where it is a candidate. One text read by two readers compares representations; two writers compare use.",
    table(["behaviour", "reader", "writer", "span AUROC", "spans / windows", "onset AUROC", "positive / negative opportunities", "problems"], rows, [4, 5, 6, 7]),
    table(["reader", "writer", "fires on (select)", "mean where it fires", "highest"], record.rates.map((r) => [r.reader, r.writer, `${figure(100 * r.firing_rate, 2)} %`, figure(r.mean_active), figure(r.max_active)]), [2, 3, 4]));
}

function histogram(record) {
  const { edges, counts, active, tokens } = record.histogram;
  const charts = Object.keys(READERS).map((reader) => {
    const own = counts[reader] || [];
    const most = Math.max(1, ...Object.values(counts).flat());
    const height = (count) => (count ? 8 + 92 * Math.log(count) / Math.max(Math.log(most), 1e-9) : 0);
    const bars = own.map((count, i) => svg("rect", { x: `${100 * i / own.length}%`, width: `${92 / own.length}%`, y: `${100 - height(count)}%`, height: `${height(count)}%` },
      svg("title", {}, `${figure(edges[i], 2)} to ${figure(edges[i + 1], 2)}: ${count} tokens`)));
    const words = (x, text, anchor) => svg("text", { x, y: "100%", dy: 16, "text-anchor": anchor }, text);
    const picture = svg("svg", { role: "img", "aria-label": `Histogram of active values, ${reader} reader` },
      svg("g", { class: `series-${reader}` }, ...bars), svg("line", { class: "axis", x1: "0%", x2: "100%", y1: "100%", y2: "100%" }),
      words("0%", "0", "start"), words("100%", figure(edges.at(-1), 1), "end"), words("50%", "activation", "middle"),
      svg("text", { x: 0, y: 4, dx: -6, "text-anchor": "end" }, String(most)), svg("text", { x: 0, y: "92%", dx: -6, dy: 4, "text-anchor": "end" }, "1"));
    const share = tokens ? figure(100 * (active[reader] || 0) / tokens, 2) : "–";
    return element("div", "histogram", element("div", "small", `${READERS[reader]}: fires on ${share} % of n = ${tokens.toLocaleString("en")} tokens; tokens in each bin, log scale`), picture);
  });
  return titled("Activations", "Active values on the report split.", element("div", "two", ...charts));
}

function outputs(record) {
  const list = (rows) => { const made = table(["token", "logit"], rows.map(([token, logit]) => [element("bdi", "", token), figure(logit, 2)]), [1]); made.classList.add("tokens"); return made; };
  return titled("Output tokens", "Direct effect of its direction through the RL model's final norm and unembedding, less the mean over the vocabulary. Later blocks are left out; a property of the weights has no interval.",
    element("div", "two", element("div", "", element("div", "small", "more likely"), list(record.output.top)), element("div", "", element("div", "small", "less likely"), list(record.output.bottom))));
}

function baselines(record) {
  if (!record.baselines.length) return element("div", "");
  return titled("Comparison with baselines", "On the same spans and windows (onset predictors: opportunities), report split; the difference is paired by problem, with its 95 % interval. A latent outperforms a baseline where the interval lies above 0 and q, over the whole list, below 0.05.",
    table(["list", "behaviour", "reader", "writer", "baseline", "its AUROC", "the baseline's", "difference", "q", "problems", "outperforms"],
      record.baselines.map((r) => [listName(r), r.behaviour, r.reader, r.writer, r.baseline, figure(r.auroc), figure(r.baseline_auroc), whole(figure(r.difference) + interval(r.low, r.high)), figure(r.q), r.n, r.outperforms ? "✓ yes" : "no"]), [5, 6, 8, 9]));
}

function attacks(record) {
  if (!record.attacks.length) return titled("Attacks", "No attack was run on it.");
  const rows = record.attacks.map((a) => [listName(a), a.behaviour, a.reader, a.kind, outcome(a), whole(figure(a.auroc) + interval(a.low, a.high)), figure(a.unstratified_auroc), a.comparable === null ? "–" : `${(100 * a.comparable).toFixed(0)} %`, `${a.n_pos} / ${a.n_neg} (${a.num_problems})`]);
  const parts = [table(["list", "behaviour", "reader", "attack", "outcome", "AUROC under attack", "unstratified AUROC", "comparable", "n: spans / others (problems)"], rows)];
  if (record.injections.length) {
    parts.push(table(["behaviour", "reader", "inserted into", "words", "AUROC shift", "null, 95 %", "n"],
      record.injections.map((p) => [p.behaviour, p.reader, p.host_text, element("bdi", "", p.words), figure(p.injection_auroc), figure(p.null_95), p.num_windows]), [4, 5, 6]));
  }
  return titled("Attacks", "An attack refutes a latent that significantly retains too little of its advantage over chance; bounds are 95 %, over problems.", ...parts);
}

function neighbours(record) {
  if (!record.neighbours) return element("div", "");
  const link_to = (n) => {
    const other = n.name ? listings.find((row) => row.name === n.name) : null;
    const link = element(other ? "a" : "span", "", `${record.layer}/${n.latent}`);
    if (other) { link.href = `#${other.index}`; link.addEventListener("click", (event) => { event.preventDefault(); go(other.index); }); }
    return [link, other ? `${listName(other)}: ${other.behaviour}` : "not shortlisted"];
  };
  const list = (title, columns, rows) => element("div", "", element("div", "small", title), table(columns, rows, columns.map((_, i) => i).slice(1, -1)));
  const near = record.neighbours.map((n) => { const [link, listed] = link_to(n); return [link, figure(n.cosine), listed]; });
  const along = (record.companions || []).map((n) => { const [link, listed] = link_to(n); return [link, figure(n.pearson), n.both.toLocaleString("en"), listed]; });
  const tokens = record.histogram ? record.histogram.tokens.toLocaleString("en") : "–";
  return titled("Nearest latents", "Of the same dictionary: those with the most similar directions, and those that fire together with it.", element("div", "two",
    list("by cosine of decoder rows", ["latent", "cosine", "listed for"], near),
    list(`by correlation of activations, RL reader, n = ${tokens} tokens of the report split`, ["latent", "r", "both fire on", "listed for"], along)));
}

function matched(record) {
  const parts = [];
  if (record.matched.length) {
    const units = [...new Set(record.matched.map((c) => (c.by === "words" ? "word" : "token")))].join(" or ");
    parts.push(element("p", "small", `In ${notes.other}: the most similar latent of each layer, with the largest similarity expected by chance (95 % of draws of the null lie below it) and that expected if both latents depended only on the ${units} they are on. A similarity that isn't far above the latter may be of ${units}s alone. r is of activations, n counts problems (of cosines, coordinates).`),
      table(["latent", "listed there for", "matched by", "similarity", `by ${units} alone`, "null, 95 %", "n", "each other's best"],
        record.matched.map((c) => [`${c.other_layer}/${c.other_latent}`, c.other_behaviours || "isn't shortlisted", SIMILARITY[c.by] || c.by, whole(figure(c.value) + interval(c.low, c.high)),
          figure(c.same_word), figure(c.null_95), c.n, c.is_mutual ? "✓ yes" : "no"]), [4, 5, 6]));
  } else parts.push(element("p", "missing", notes.match || "No match: it fires too rarely."));
  if (record.replicas.length) {
    parts.push(element("p", "small", "In dictionaries trained from other seeds: the nearest direction, its rank among all latents there for the same behaviour, and how far its span AUROC is above that of the lowest rank that counts as replicated. The latent is robust where the direction is near enough and significantly ranks as high."),
      table(["behaviour", "reader", "seed", "latent", "cosine", "place", "lead (select)", "span AUROC (report)", "outcome"], record.replicas.map((r) => [r.behaviour, r.reader, r.seed, r.matched_latent, figure(r.cosine), r.rank, whole(figure(r.lead) + interval(r.lead_low, r.lead_high)), figure(r.span_auroc), outcome(r)]), [4, 5, 7]));
  }
  return titled("In other dictionaries", "", ...parts);
}
