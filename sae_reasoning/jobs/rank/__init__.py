"""Score every latent for every behaviour, with baselines; draw up both lists and attack them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from sae_reasoning.behaviours.baselines import RANDOM_READER, SPARSE_PROBE
from sae_reasoning.behaviours.beaten import beaten_by, count_beaten
from sae_reasoning.behaviours.grid import compare_grid
from sae_reasoning.behaviours.headlines import (
    empty_lists,
    headlines,
    survivors_in_words,
    words_suffice,
)
from sae_reasoning.behaviours.outcomes import attack_summary, calls
from sae_reasoning.behaviours.probes import SPARSE_SIZES
from sae_reasoning.behaviours.shortlist import (
    add_intervals,
    draw_up,
    findings,
    mark_candidates,
    with_labels,
)
from sae_reasoning.behaviours.windows import NO_SPANS
from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage, require_stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import models_in, outside_inputs
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.shortlist import write_shortlist
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.edges.workers import shared_out
from sae_reasoning.jobs.rank.attacked import attack_shortlists, gather_attacks
from sae_reasoning.jobs.rank.beaten import hold_shortlists
from sae_reasoning.jobs.rank.data import RankData, open_data, saved_maxima
from sae_reasoning.jobs.rank.passes import attribute_onsets, score_store
from sae_reasoning.jobs.rank.rivals import random_reader, score_text
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist
from sae_reasoning.texts import bounded
from sae_reasoning.traces.problems import more_traces

_ORDER = [
    "dictionary",
    "layer",
    "latent",
    "behaviour",
    "reader",
    "writer",
    "split",
    "status",
    "n_pos",
    "n_neg",
    "num_problems",
    "span_auroc",
    "span_auroc_low",
    "span_auroc_high",
    "token_auroc",
    "onset_auroc",
    "onset_matched_share",
    "n_taken",
    "n_untaken",
    "point_biserial",
    "mutual_information",
    "mutual_information_null",
    "reason_score",
    "rate_in",
    "rate_out",
    "rate_at_opportunities",
    "onset_attribution",
    "is_candidate",
    "p",
    "q",
]


def rank(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest | None:
    """Make `rank/`: scores, latents, baselines, lists, attacks; with `rank.only` one pass of it."""
    now = outside_inputs(cfg)
    inputs = models_in(cfg, now) | {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint
        for name in ("traces", "cache", "train")
    }
    is_part = cfg.is_partial("rank")
    with Stage(cfg.folder / "rank", cfg.settings("rank"), inputs, shared=is_part) as stage:
        if stage.is_current:
            console.current("rank", stage.final)
            assert stage.manifest
            return stage.manifest
        data = open_data(cfg, inputs)
        _plan(cfg, data, stage, console)
        parts = stage.folder / "parts"
        parts.mkdir(exist_ok=True)
        _shared_out(cfg, _passes(cfg, data, parts, console))
        if is_part:
            console.say(f"  {cfg.rank.only} is scored, in {parts}")
            console.next("rank", "once all parts are")
            return None
        score_text(cfg, data, parts)
        random = random_reader(cfg, data, parts, console)
        scores, latents, baselines = _gather(cfg, data, parts)
        with console.progress(1, "tables", "intervals") as bar:
            scores = add_intervals(scores, saved_maxima(data, parts, "spans"), cfg.behaviours)
            lists = draw_up(
                scores,
                latents,
                saved_maxima(data, parts, "onsets"),
                cfg.behaviours,
                span_detectors=cfg.rank.span_detectors,
                onset_predictors=cfg.rank.onset_predictors,
                onset_predictors_by=cfg.rank.onset_predictors_by,
                bootstrap=cfg.rank.bootstrap,
                seed=cfg.rank.seed,
            )
            lists = replace(
                lists, dictionaries=data.known(cfg), wordings_held_out=data.labels.wordings
            )
            bar.advance()
        write_table(stage.folder / "scores.parquet", scores[_ORDER])
        write_table(stage.folder / "latents.parquet", latents)
        write_table(stage.folder / "baselines.parquet", baselines)
        others = [
            partial(hold_shortlists, cfg, data, lists, random, parts),
            partial(_grid, cfg, data, lists, parts),
        ]
        attacks = attack_shortlists(cfg, data, lists, random, parts, console)
        *_, beaten, grid = _shared_out(cfg, [*attacks, *others])
        attacked = gather_attacks(data, parts)
        for name, table in (vars(attacked) | {"grid": grid, "beaten": beaten}).items():
            write_table(stage.folder / f"{name}.parquet", table)
        lists = with_labels(lists, attacked.attacks, beaten_by(beaten))
        write_shortlist(stage.folder, lists)
        # All that is shown is worked out before the stage counts as made, and isn't shown again.
        found = _found(cfg, scores, baselines, lists, attacked.attacks, grid, beaten)
        shutil.rmtree(parts)
        manifest = stage.finish(
            {
                "scores": len(scores),
                "candidates": int(scores.is_candidate.sum()),
                "tokens": len(data.rows.token_id),
                "spans": int(data.labels.spans.is_positive.sum()),
            }
        )
    tracker.table("findings", found.tables["best latents"][1])
    tracker.table("top latents", found.top)
    tracker.summary(manifest.counts)
    for name, (title, table) in found.tables.items():
        tracker.table(name, table)
        console.detail(title, list(table), table.values.tolist())
    if found.heads:
        console.table(
            "best latent of each list, report split: span AUROC of detectors, onset AUROC of "
            f"predictors (chosen by {cfg.rank.onset_predictors_by.replace('_', ' ')})",
            ["behaviour", "latent", "layer/index", "AUROC [95 % CI]", "attacks"],
            found.heads,
            at_most=10,
        )
    for line in found.said:
        console.tell(line)
    console.wrote(stage.final, manifest)
    console.next("ablate")
    return manifest


class _Found(NamedTuple):
    """What the stage shows.

    Attributes:
        top: The candidates that a person looks at first.
        tables: Title and content of each that isn't empty, by name.
        heads: Rows about the best latent of each list.
        said: What the attacks leave of them, and what that means.
    """

    top: pd.DataFrame
    tables: dict[str, tuple[str, pd.DataFrame]]
    heads: list[list[str]]
    said: list[str]


def _found(
    cfg: Config,
    scores: pd.DataFrame,
    baselines: pd.DataFrame,
    lists: Shortlist,
    attacks: pd.DataFrame,
    grid: pd.DataFrame,
    beaten: pd.DataFrame,
) -> _Found:
    tables = {
        "best latents": (_title(baselines), findings(scores, baselines, lists, cfg.behaviours)),
        "sparse probes": ("span AUROC of probes of k latents", _probes(baselines)),
        "grid": ("base against RL: what differs significantly (q < 0.05)", _differences(grid)),
        "beaten": (
            "latents that significantly outperform a baseline, paired",
            count_beaten(beaten),
        ),
    }
    for name in (SPAN_DETECTORS, ONSET_PREDICTORS):
        words = name.replace("_", " ")
        tables[f"attacks on {words}"] = (
            f"{words} refuted, by attack",
            attack_summary(attacks, name),
        )
        tables[f"calls of {words}"] = (f"{words}, as they're called", calls(attacks, name))
    heads = headlines(lists, attacks)
    said = [
        f"No {kind} is listed for any behaviour, so none is attacked; {more_traces(cfg)}, or ask "
        "for other behaviours."
        for kind in empty_lists(lists)
    ]
    if survivors := survivors_in_words(attacks):
        said.append(survivors)
    if named := words_suffice(heads, baselines):
        said.append(
            "An n-gram model of the text reaches the best detector's interval for "
            f"{', '.join(named)}: there its AUROC is no sign of more than words."
        )
    return _Found(
        _top(scores),
        {name: one for name, one in tables.items() if len(one[1])},
        [[h.behaviour, h.kind, h.latent, h.interval, h.attacks] for h in heads],
        said,
    )


def _shared_out(cfg: Config, pieces: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each piece of work gives, done by processes where there are cores for them."""
    device = torch.device(resolve_device(cfg.device))
    return list(shared_out(lambda piece: piece(), pieces, device))


def _passes(cfg: Config, data: RankData, parts: Path, console: Console) -> list[Callable[[], None]]:
    """What is read of each reader's onsets, and of each store; of one of them with `rank.only`."""
    every = [(reader, layer) for reader in cfg.pair.readers for layer in cfg.layers]
    chosen = [(r, x) for r, x in every if cfg.rank.only in ("", f"{r}/{x}")]
    return [
        *(
            partial(attribute_onsets, cfg, data, reader, parts, console)
            for reader, layer in chosen
            if layer == cfg.layers[0]
        ),
        *(
            partial(score_store, cfg, data, reader, layer, parts, console)
            for reader, layer in chosen
        ),
    ]


def _plan(cfg: Config, data: RankData, stage: Stage, console: Console) -> None:
    spans = data.labels.spans
    console.plan(
        "rank",
        {
            "activations": f"{len(data.rows.token_id):,} tokens, readers "
            f"{', '.join(cfg.pair.readers)}, layers {', '.join(map(str, cfg.layers))}",
            "latents": ", ".join(f"{d.name}: {d.d_sae}" for d in data.dictionaries.values()),
            "spans": f"{int(spans.is_positive.sum()):,} with "
            f"{int((~spans.is_positive).sum()):,} windows, of {len(cfg.behaviours)} behaviours",
            "onsets": f"{len(data.labels.onsets.start):,} opportunities",
            "held out of selection": "; ".join(
                f"{behaviour}: {', '.join(words) or 'no wording'}"
                for behaviour, words in data.labels.wordings.items()
            ),
        }
        | ({"silent": _silent(cfg, data)} if cfg.rank.max_norm_multiple else {})
        | ({"resuming": "yes"} if stage.is_resuming else {}),
    )
    for (behaviour, writer), status in data.labels.status.items():
        if status == NO_SPANS:
            console.warn(f"{behaviour}: too few spans by {writer} for both splits; skipped there")


def _silent(cfg: Config, data: RankData) -> str:
    """Tokens that count as silent for their norm, by reader and layer."""
    multiple = cfg.rank.max_norm_multiple
    counts = {key: data.norms(*key).num_beyond(multiple) for key in data.stores}
    some = ", ".join(f"{n:,} of {reader}/layer_{x}" for (reader, x), n in counts.items() if n)
    return f"{some or 'no'} tokens, with a norm of more than {multiple:g} times the median"


def _gather(
    cfg: Config, data: RankData, parts: Path
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All parts as three tables, candidates marked."""

    def joined(pattern: str) -> pd.DataFrame:
        return pd.concat(
            [read_table(path) for path in sorted(parts.glob(pattern))], ignore_index=True
        )

    attributions = pd.concat(
        [read_table(parts / f"{r}_attribution.parquet").assign(reader=r) for r in cfg.pair.readers]
    ).assign(split="select")
    keys = ["layer", "latent", "behaviour", "reader", "writer", "split"]
    scores = joined("*_points.parquet").merge(attributions, on=keys, how="left")
    scores["is_candidate"] = mark_candidates(
        scores,
        candidates=cfg.rank.candidates,
        onset_predictors=cfg.rank.onset_predictors,
        onset_predictors_by=cfg.rank.onset_predictors_by,
    )
    return scores, joined("*_latents.parquet"), joined("*_baselines.parquet")


def _grid(cfg: Config, data: RankData, lists: Shortlist, parts: Path) -> pd.DataFrame:
    """Every tracker in both readers on both writers' text."""
    chosen: dict[tuple[str, int], list[int]] = {}
    for behaviour, entries in lists.span_detectors.items():
        for entry in entries:
            chosen.setdefault((behaviour, entry.layer), []).append(entry.latent)
    return compare_grid(
        chosen,
        cfg.behaviours,
        saved_maxima(data, parts, "spans"),
        saved_maxima(data, parts, "onsets"),
        num_resamples=cfg.rank.bootstrap,
        seed=cfg.rank.seed,
        readers=list(cfg.pair.readers),
    )


def _probes(baselines: pd.DataFrame) -> pd.DataFrame:
    """The best layer of each size of sparse probe, by the select split."""
    names = {SPARSE_PROBE.format(k): k for k in SPARSE_SIZES}
    own = baselines[baselines.baseline.isin(names) & (baselines.writer == "rl")]
    own = own.sort_values("select_span_auroc", ascending=False)
    best = own.groupby(["behaviour", "reader", "baseline"], sort=False).head(1)
    figure = [bounded(r.span_auroc, r.low, r.high, 3) for r in best.itertuples()]
    table = best.assign(figure=figure, k=best.baseline.map(names)).pivot(
        index=["behaviour", "reader"], columns="k", values="figure"
    )
    table = table.rename(columns={k: f"k = {k}" for k in SPARSE_SIZES}).reset_index()
    return table.astype(object).where(table.notna(), None)


def _differences(grid: pd.DataFrame) -> pd.DataFrame:
    """Per measure and kind of difference: for how many span detectors it is significant."""
    rows = []
    groups = ["measure", "between", "fixed"]
    for key, own in grid.groupby(groups, sort=False):
        up, down = ((own.q < 0.05) & (own.difference * sign > 0) for sign in (1, -1))
        rows.append(
            dict(zip(groups, key, strict=True))
            | {
                "span_detectors": len(own),
                "rl higher": int(up.sum()),
                "base higher": int(down.sum()),
                "median difference": own.difference.median(),
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


def _title(baselines: pd.DataFrame) -> str:
    """Of the findings: what they are, and what the random reader had to go on."""
    title = "findings on the report split: span AUROC"
    random = baselines[baselines.baseline == RANDOM_READER]
    if random.empty:
        return title
    first = random.iloc[0]
    return (
        f"{title} ({RANDOM_READER}: best layer, {first.steps:,} steps on {first.num_traces:,} "
        "traces with behaviours)"
    )


def _top(scores: pd.DataFrame) -> pd.DataFrame:
    """The candidates that a person looks at first."""
    tested = scores[scores.is_candidate & (scores.split == "report")]
    best = tested.sort_values("span_auroc", ascending=False)
    return best.groupby(["behaviour", "reader", "writer"]).head(10)[_ORDER]
