"""Score every latent for every behaviour, with baselines; draw up both lists and attack them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sae_reasoning.behaviours.grid import compare_grid
from sae_reasoning.behaviours.scores import SCORES
from sae_reasoning.behaviours.shortlist import add_intervals, draw_up, mark_candidates
from sae_reasoning.behaviours.windows import NO_SPANS
from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.lm.load import resolve_device
from sae_reasoning.edges.shortlist import write_shortlist
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.edges.workers import shared_out
from sae_reasoning.jobs.rank.attacks import attack_pieces, gather_attacks
from sae_reasoning.jobs.rank.baselines import compare_shortlists
from sae_reasoning.jobs.rank.data import open_data
from sae_reasoning.readings.data import ONSETS, SPANS, Readings, saved_maxima
from sae_reasoning.readings.passes import attribute_onsets, score_store
from sae_reasoning.readings.random_reader import random_reader, score_text
from sae_reasoning.records import Shortlist
from sae_reasoning.robustness.baseline_comparison import outperformed_baselines
from sae_reasoning.robustness.labels import with_labels
from sae_reasoning.robustness.summary import RankSummary, summarise_ranking


def rank(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest | None:
    """Make `rank/`: scores, latents, baselines, lists, attacks; with `rank.only` one pass of it."""
    inputs = inputs_of("rank", cfg)
    is_part = cfg.is_partial("rank")
    with Stage(cfg.folder / "rank", cfg.settings("rank"), inputs, shared=is_part) as stage:
        if done := console.up_to_date(stage):
            return done
        readings = open_data(cfg, inputs)
        _plan(cfg, readings, stage, console)
        parts = stage.folder / "parts"
        parts.mkdir(exist_ok=True)
        _shared_out(cfg, _passes(cfg, readings, parts, console))
        if is_part:
            console.say(f"  {cfg.rank.only} is scored, in {parts}")
            console.next("rank", "once all parts are")
            return None
        score_text(cfg, readings, parts)
        random = random_reader(cfg, readings, parts, console)
        tables = _gather(cfg, readings, parts)
        lists = _draw_up(cfg, readings, tables, parts)
        *_, comparison, grid = _shared_out(
            cfg,
            [
                *attack_pieces(cfg, readings, lists, random, parts, console),
                partial(compare_shortlists, cfg, readings, lists, random, parts),
                partial(_grid, cfg, readings, lists, parts),
            ],
        )
        tables |= gather_attacks(readings, parts)
        tables |= {"grid": grid, "baseline_comparison": comparison}
        lists = with_labels(lists, tables["attacks"], outperformed_baselines(comparison))
        for name, table in tables.items():
            write_table(stage.folder / f"{name}.parquet", table)
        write_shortlist(stage.folder, lists)
        # All that is shown is worked out before the stage counts as made, and isn't shown again.
        summary = summarise_ranking(cfg, lists, tables)
        shutil.rmtree(parts)
        manifest = stage.finish(
            {
                "scores": len(tables["scores"]),
                "candidates": int(tables["scores"].is_candidate.sum()),
                "tokens": len(readings.rows.token_id),
                "spans": int(readings.labels.spans.is_positive.sum()),
            }
        )
    _show(cfg, summary, manifest, tracker, console)
    console.wrote(stage.final, manifest)
    console.next("ablate")
    return manifest


def _show(
    cfg: Config, summary: RankSummary, manifest: Manifest, tracker: Tracker, console: Console
) -> None:
    tracker.table("findings", summary.tables["best latents"][1])
    tracker.table("top latents", summary.top)
    tracker.summary(manifest.counts)
    for name, (title, table) in summary.tables.items():
        tracker.table(name, table)
        console.detail(title, list(table), table.values.tolist())
    if summary.heads:
        console.table(
            "best latent of each list, report split: span AUROC of detectors, onset AUROC of "
            f"predictors (chosen by {cfg.rank.onset_predictors_by.replace('_', ' ')})",
            ["behaviour", "latent", "layer/index", "AUROC [95 % CI]", "attacks"],
            summary.heads,
            at_most=10,
        )
    for line in summary.said:
        console.tell(line)


def _shared_out(cfg: Config, pieces: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each piece of work gives, done by processes where there are cores for them."""
    device = torch.device(resolve_device(cfg.device))
    return list(shared_out(lambda piece: piece(), pieces, device))


def _passes(
    cfg: Config, readings: Readings, parts: Path, console: Console
) -> list[Callable[[], None]]:
    """What is read of each reader's onsets, and of each store; of one of them with `rank.only`."""
    every = [(reader, layer) for reader in cfg.pair.readers for layer in cfg.layers]
    chosen = [(r, x) for r, x in every if cfg.rank.only in ("", f"{r}/{x}")]
    return [
        *(
            partial(attribute_onsets, cfg, readings, reader, parts, console)
            for reader, layer in chosen
            if layer == cfg.layers[0]
        ),
        *(
            partial(score_store, cfg, readings, reader, layer, parts, console)
            for reader, layer in chosen
        ),
    ]


def _plan(cfg: Config, readings: Readings, stage: Stage, console: Console) -> None:
    spans = readings.labels.spans
    console.plan(
        "rank",
        {
            "activations": f"{len(readings.rows.token_id):,} tokens, readers "
            f"{', '.join(cfg.pair.readers)}, layers {', '.join(map(str, cfg.layers))}",
            "latents": ", ".join(f"{d.name}: {d.d_sae}" for d in readings.dictionaries.values()),
            "spans": f"{int(spans.is_positive.sum()):,} with "
            f"{int((~spans.is_positive).sum()):,} windows, of {len(cfg.behaviours)} behaviours",
            "onsets": f"{len(readings.labels.onsets.start):,} opportunities",
            "held out of selection": "; ".join(
                f"{behaviour}: {', '.join(words) or 'no wording'}"
                for behaviour, words in readings.labels.wordings.items()
            ),
        }
        | ({"silent": _silent(cfg, readings)} if cfg.rank.max_norm_multiple else {})
        | ({"resuming": "yes"} if stage.is_resuming else {}),
    )
    for (behaviour, writer), status in readings.labels.status.items():
        if status == NO_SPANS:
            console.warn(f"{behaviour}: too few spans by {writer} for both splits; skipped there")


def _silent(cfg: Config, readings: Readings) -> str:
    """Tokens that count as silent for their norm, by reader and layer."""
    multiple = cfg.rank.max_norm_multiple
    counts = {key: readings.norms(*key).num_beyond(multiple) for key in readings.stores}
    some = ", ".join(f"{n:,} of {reader}/layer_{x}" for (reader, x), n in counts.items() if n)
    return f"{some or 'no'} tokens, with a norm of more than {multiple:g} times the median"


def _gather(cfg: Config, readings: Readings, parts: Path) -> dict[str, pd.DataFrame]:
    """What the passes left, as tables; candidates are marked and have intervals."""

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
    scores = add_intervals(scores, saved_maxima(readings, parts, SPANS), cfg.behaviours)
    return {
        "scores": scores[SCORES],
        "latents": joined("*_latents.parquet"),
        "baselines": joined("*_baselines.parquet"),
    }


def _draw_up(
    cfg: Config, readings: Readings, tables: dict[str, pd.DataFrame], parts: Path
) -> Shortlist:
    """Both lists, not attacked yet."""
    lists = draw_up(
        tables["scores"],
        tables["latents"],
        saved_maxima(readings, parts, ONSETS),
        cfg.behaviours,
        span_detectors=cfg.rank.span_detectors,
        onset_predictors=cfg.rank.onset_predictors,
        onset_predictors_by=cfg.rank.onset_predictors_by,
        bootstrap=cfg.rank.bootstrap,
        seed=cfg.rank.seed,
    )
    wordings = readings.labels.wordings
    return replace(lists, dictionaries=readings.known(cfg), wordings_held_out=wordings)


def _grid(cfg: Config, readings: Readings, lists: Shortlist, parts: Path) -> pd.DataFrame:
    """Every span detector in both readers on both writers' text."""
    return compare_grid(
        lists.span_detectors,
        cfg.behaviours,
        saved_maxima(readings, parts, SPANS),
        saved_maxima(readings, parts, ONSETS),
        num_resamples=cfg.rank.bootstrap,
        seed=cfg.rank.seed,
        readers=list(cfg.pair.readers),
    )
