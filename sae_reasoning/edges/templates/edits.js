"use strict";
// Edits of the sets that hold the latent: effects and controls, doses, other behaviours, and texts.
const CONDITION_NAMES = {
  edit: "the edit", matched_latent: "matched latents", random_direction: "random directions", random_positions: "random positions",
  other_behaviour: "other behaviours' latents", mean_difference: "mean difference", latents_and_error: "latents and the SAE's error",
  whole_residual: "whole residual", random_span: "random span", permuted_match: "matched latents of other latents",
};
const MODEL_NAMES = { base: "base", rl: "RL model" };
const named = (condition) => CONDITION_NAMES[condition] || condition;
const done_to = (e) => (e.edit === "ablate" ? "set to 0" : `${e.edit} ${figure(e.dose, 1)} × maximum`);

function edits(record) {
  const title = "Edits";
  if (!record.sets) return titled(title, notes.ablate || "");
  if (!record.sets.length) return titled(title, "No edited set holds this latent.");
  const alone = record.sets.some((s) => s.set_size === 1);
  const said = (s) => (s.significant ? "✓ yes" : s.coherent === false ? `no: damage (${s.damaged})` : s.significant === false ? "no" : s.coherent === null ? `– unknown: ${s.unknown}` : "– no controls");
  const rows = record.sets.map((s) => [`${MODEL_NAMES[s.model]}, ${done_to(s)}`, s.behaviour, s.set_size, said(s),
    whole(`${figure(s.without)} → ${figure(s.value)}`), whole(figure(s.difference) + interval(s.low, s.high)), figure(s.q), s.n,
    `${s.where === "all" ? "all tokens" : s.where}, found by the ${s.found_by === "rl" ? "RL" : s.found_by} reader`]);
  const [tested, significant] = [record.sets.filter((s) => s.significant !== null).length, record.sets.filter((s) => s.significant).length];
  const all = element("details", "", element("summary", "", `All ${rows.length} edits of sets that hold it; ${tested ? `${significant} of the ${tested} with controls are significant` : "none has controls"}`),
    element("p", "small", "An edit is significant where it passes the coherence guard (other behaviours are still executed rightly; on natural text accuracy and other behaviours' rates don't fall, and the text doesn't degenerate) and its change differs from no edit and exceeds one more draw of every control (q < 0.05). Without matched latents and random directions, or where the guard can't be told, significance isn't known."),
    table(["edit", "behaviour", "latents", "significant", "starts per opportunity", "change", "q", "n", "where"], rows, [2, 6, 7]));
  all.open = rows.length < 8;
  const parts = [all];
  for (const key of [...new Set(record.beside.map((b) => `${b.model}|${b.behaviour}`))]) parts.push(...mainEdit(record, ...key.split("|")));
  return titled(title, `On problems of the report split; 95 % intervals over problems. An edit changes a set of latents together${alone ? "; a set of one is this latent alone" : ", so these are effects of the set, not of this latent alone"}.`, ...parts);
}

function mainEdit(record, model, behaviour) {
  const of = (rows) => rows.filter((row) => row.model === model && row.behaviour === behaviour);
  const beside = of(record.beside).filter((b) => b.difference !== null).sort((a, b) => (b.condition === "edit") - (a.condition === "edit"));
  const parts = [element("h4", "", `${MODEL_NAMES[model]}: ${behaviour}, with controls and baselines`),
    differenceBars(beside.map((b) => ({ ...b, label: named(b.condition) })), "change of starts per opportunity")];
  const off = of(record.off_target).filter((o) => o.difference !== null);
  if (off.length) parts.push(element("h4", "", `${MODEL_NAMES[model]}: the same edit on every behaviour`), differenceBars(off.map((o) => ({ ...o, label: o.behaviour + (o.behaviour === behaviour ? " (its own)" : "") })), "change of starts per opportunity"));
  const text = of(record.text || []);
  if (text.length) parts.push(element("h4", "", `${MODEL_NAMES[model]}: the text itself`), table(["", "without → with the edit", "change", "n"],
    text.map((t) => [t.part, whole(`${figure(t.without)} → ${figure(t.value)}`), whole(t.difference === null ? "–" : figure(t.difference) + interval(t.low, t.high)), t.n]), [3]));
  const doses = of(record.doses).filter((d) => d.difference !== null);
  if (new Set(doses.map((d) => d.dose)).size > 1) parts.push(doseCurve(doses, `${MODEL_NAMES[model]}: dose–response of ${behaviour}`));
  for (const pair of of(record.texts)) parts.push(textPair(pair));
  return parts;
}

function scaleOf(values) {
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const space = 0.05 * (high - low || 1);
  return (value) => 100 * (value - low + space) / (high - low + 2 * space);
}
function differenceBars(rows, unit) {
  const at = scaleOf(rows.flatMap((r) => [r.difference, r.low, r.high]).filter((v) => v !== null));
  const parts = rows.flatMap((r) => {
    const has = r.low !== null && r.high !== null;
    const picture = svg("svg", { role: "img", "aria-label": `${r.label}: ${figure(r.difference)}${interval(r.low, r.high)}, n = ${r.n}` },
      svg("line", { class: "axis", x1: `${at(0)}%`, x2: `${at(0)}%`, y1: 0, y2: 24 }),
      svg("g", { class: r.condition === "edit" || r.label.endsWith("(its own)") ? "series-rl" : "series-" },
        ...(has ? [svg("line", { x1: `${at(r.low)}%`, x2: `${at(r.high)}%`, y1: 12, y2: 12, "stroke-width": 3 })] : []),
        svg("circle", { cx: `${at(r.difference)}%`, cy: 12, r: 5 })));
    return [element("div", "label", r.label), element("div", "", picture),
      element("div", "figure", `${figure(r.difference)}${interval(r.low, r.high)} `, element("span", "small", `n = ${r.n}${r.num_draws > 1 ? `, ${r.num_draws} draws` : ""}`))];
  });
  return element("div", "", element("div", "bars", ...parts), element("p", "small", `${unit}; the line marks no change.`));
}

function doseCurve(points, title) {
  const lines = [...new Set(points.map((p) => p.condition))];
  const doses = [...new Set(points.map((p) => p.dose))].sort((a, b) => a - b);
  const at_y = scaleOf(points.flatMap((p) => [p.difference, p.low, p.high]).filter((v) => v !== null));
  const logs = doses.map(Math.log2);
  const at_x = (dose) => 4 + 92 * (Math.log2(dose) - logs[0]) / (logs.at(-1) - logs[0] || 1);
  const y = (value) => `${100 - at_y(value)}%`;
  const ys = points.flatMap((p) => [p.low, p.high]).filter((v) => v !== null);
  const grid_lines = [Math.min(0, ...ys), 0, Math.max(0, ...ys)].filter((v, i, all) => all.indexOf(v) === i).flatMap((v) => [
    svg("line", { class: "grid", x1: "0%", x2: "100%", y1: y(v), y2: y(v) }), svg("text", { x: "0%", dx: -8, dy: 4, y: y(v), "text-anchor": "end" }, figure(v, 2))]);
  const ticks = doses.map((d) => svg("text", { x: `${at_x(d)}%`, y: "100%", dy: 18, "text-anchor": "middle" }, String(d)));
  const curves = lines.map((name, i) => {
    const own = points.filter((p) => p.condition === name).sort((a, b) => a.dose - b.dose);
    return svg("g", { class: `c${i % 8} d${i % 3}` },
      ...own.slice(1).map((p, k) => svg("line", { class: "curve link", x1: `${at_x(own[k].dose)}%`, y1: y(own[k].difference), x2: `${at_x(p.dose)}%`, y2: y(p.difference) })),
      ...own.flatMap((p) => [
        ...(p.low === null ? [] : [svg("line", { class: "curve", x1: `${at_x(p.dose)}%`, x2: `${at_x(p.dose)}%`, y1: y(p.low), y2: y(p.high) })]),
        svg("circle", { class: "curve", cx: `${at_x(p.dose)}%`, cy: y(p.difference), r: 4 }, svg("title", {}, `${named(name)}, ${p.dose}: ${figure(p.difference)}${interval(p.low, p.high)}, n = ${p.n}`))]));
  });
  const key = element("ul", "key", ...lines.map((name, i) => {
    const swatch = svg("svg", { "aria-hidden": "true" }, svg("line", { class: "curve link", x1: 0, x2: 34, y1: 6, y2: 6 }), svg("circle", { class: "curve", cx: 17, cy: 6, r: 4 }));
    return element("li", `c${i % 8} d${i % 3}`, swatch, ` ${named(name)}`);
  }));
  const ns = points.map((p) => p.n);
  const picture = svg("svg", { role: "img", "aria-label": title }, ...grid_lines, ...ticks, ...curves);
  return element("div", "", element("h4", "", title), key, element("div", "plot dose", element("div", "small ylabel", "change of starts per opportunity, 95 %"), picture,
    element("div", "small under", `dose, in multiples of each latent's maximum (log scale); n = ${Math.min(...ns)} to ${Math.max(...ns)} opportunities`)));
}

function textPair(pair) {
  const words = (pieces) => pieces.map(([text, behaviour]) => {
    const piece = element("bdi", behaviour === pair.behaviour ? "marked own" : behaviour ? "marked" : "", text);
    if (behaviour) piece.title = behaviour;
    return piece;
  });
  const right = (value) => (value === null ? "not graded" : value ? "right answer" : "wrong answer");
  const rows = pair.rows.flatMap((row) => (row.same
    ? [element("div", "text alike", ...words(row.left))]
    : [element("div", "text gone", ...words(row.left)), element("div", "text new", ...words(row.right))]));
  const head = (who, i) => element("div", "who", `${who}: ${pair.behaviour} × ${pair.starts[i]}, ${right(pair.correct[i])}`);
  return element("div", "example", element("details", "", element("summary", "", `Problem ${pair.problem}, drawn at random of the ${pair.differing} of ${pair.problems} texts that the edit changed (${pair.edit})`), element("bdi", "small", pair.prompt)),
    element("div", "sides aligned", head("without", 0), head("with the edit", 1), ...rows));
}
