"""What the ablate stage needs, made small, and a run of it."""

import io
from dataclasses import asdict

import numpy as np
import pandas as pd
from behaviours.examples import narrated_traces
from shortlists import onset_predictor, span_detector

from sae_reasoning.config import Config, SaeConfig
from sae_reasoning.edges.artifacts import (
    Manifest,
    Stage,
    fingerprint,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import describe, load_tokenizer
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish, load_dictionary
from sae_reasoning.edges.shortlist import write_shortlist
from sae_reasoning.edges.tables import write_table, write_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.ablate import ablate
from sae_reasoning.jobs.cache import cache
from sae_reasoning.opening import PROBLEMS_FILE
from sae_reasoning.records import RankedDictionary, Shortlist
from sae_reasoning.tasks.problems import Problem

SHORTLIST = {"backtracking": [(0, 3), (1, 5)], "verification": [(1, 7)]}


def make_inputs(cfg: Config) -> None:
    """Narrated traces, their cache, dictionaries as sae-lens saves them, a shortlist by hand."""
    tokenizer = load_tokenizer(cfg.pair.base)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    with Stage(cfg.folder / "traces", cfg.settings("traces"), {}) as stage:
        traces = narrated_traces(encode, 10)
        posed = dict.fromkeys(Problem(t.problem_id, t.split, t.prompt) for t in traces)
        write_traces(stage.folder / "traces.parquet", traces)
        write_table(stage.folder / PROBLEMS_FILE, pd.DataFrame(map(asdict, posed)))
        made = {"traces": stage.finish({}).fingerprint}
    made["cache"] = cache(cfg, tracker=NullTracker(), console=quiet()).fingerprint
    made |= {model: describe(getattr(cfg.pair, model)).fingerprint for model in ("base", "rl")}
    make_dictionaries(cfg, made)


def make_dictionaries(cfg: Config, made: dict[str, str]) -> None:
    """Dictionaries as sae-lens saves them, and a shortlist by hand, from stages already made."""
    with Stage(cfg.folder / "train", cfg.settings("train"), made) as stage:
        for layer in cfg.layers:
            sae = build_training_sae(
                SaeConfig(d_sae=64, k=8), d_in=32, seed=layer, steps=1, metadata={"layer": layer}
            )
            finish(sae, 1.0).save(stage.folder / "pooled" / f"layer_{layer}")
        made["train"] = stage.finish({}).fingerprint
    write_rank(cfg, SHORTLIST, made)


def write_rank(
    cfg: Config, onset_predictors: dict[str, list[tuple[int, int]]], inputs: dict[str, str]
) -> None:
    names = {layer: f"pooled/layer_{layer}" for layer in cfg.layers}
    rng = np.random.default_rng(0)
    rates, means = rng.lognormal((-2.0, 0.0), size=(64, 2)).T
    latents = [
        {
            "dictionary": names[layer],
            "layer": layer,
            "latent": latent,
            "reader": reader,
            "writer": writer,
            "firing_rate": min(rates[latent], 1.0),
            "mean_active": means[latent],
            "max_active": 4 * means[latent],
        }
        for layer in cfg.layers
        for reader in ("base", "rl")
        for writer in ("base", "rl")
        for latent in range(64)
    ]
    # In the base latents beside the shortlisted ones make a behaviour's first token likelier.
    scores = [
        {
            "split": "select",
            "writer": "rl",
            "reader": reader,
            "layer": layer,
            "latent": latent + (reader == "base"),
            "behaviour": behaviour,
            "span_auroc": 0.9,
            "onset_auroc": 0.9,
            "onset_attribution": 1.0 / (place + 1),
        }
        for reader in ("base", "rl")
        for behaviour, chosen in onset_predictors.items()
        for place, (layer, latent) in enumerate(chosen)
    ]
    with Stage(
        cfg.folder / "rank",
        cfg.settings("rank"),
        dict(inputs) | {"onset_predictors": fingerprint(onset_predictors)},
    ) as stage:
        write_table(stage.folder / "latents.parquet", pd.DataFrame(latents))
        write_table(stage.folder / "scores.parquet", pd.DataFrame(scores))
        shortlist = Shortlist(
            span_detectors={
                "deduction": [span_detector(0, 1, labels=LABELS)],
                **{
                    b: [span_detector(*own[0], labels=LABELS)]
                    for b, own in onset_predictors.items()
                },
            },
            onset_predictors={
                behaviour: [onset_predictor(*place, labels=LABELS) for place in chosen]
                for behaviour, chosen in onset_predictors.items()
            },
            dictionaries={
                name: RankedDictionary(
                    f"train/{name}",
                    load_dictionary(cfg.folder / "train" / name).fingerprint,
                )
                for name in names.values()
            },
        )
        write_table(stage.folder / "attacks.parquet", pd.DataFrame(ATTACKS))
        write_shortlist(stage.folder, shortlist)
        stage.finish({})


LABELS = {"rl": "lexical"}
ATTACKS = [
    {
        "shortlist": "span_detectors",
        "behaviour": "backtracking",
        "reader": "rl",
        "layer": 0,
        "latent": 3,
        "kind": "token",
        "outcome": "refuted",
        "label": "lexical",
    }
]


def quiet() -> Console:
    return Console(stream=io.StringIO(), verbose=True)


def run(cfg: Config, console: Console | None = None) -> Manifest:
    return ablate(cfg, tracker=NullTracker(), console=console or quiet())
