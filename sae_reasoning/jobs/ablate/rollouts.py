"""Rollouts of both models under every condition, resumable."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import Beside, Rollout, generate
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt, encode_response, load
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.workers import shared_out
from sae_reasoning.jobs.ablate.joint import is_joint
from sae_reasoning.jobs.ablate.plan import Experiment, Problem
from sae_reasoning.records import MODELS
from sae_reasoning.steering.conditions import Condition
from sae_reasoning.steering.edits import RowEdits
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.steering.positions import OPPORTUNITIES, Timing

_OWN_NOISE = 50_000
"""Where samples are counted from, so that none shares its noise with the traces' rollouts."""


@dataclass(frozen=True)
class _Row:
    """One rollout to make."""

    number: int
    condition: Condition
    problem: Problem
    sample: int


@dataclass(frozen=True)
class _RolledOut:
    """What came of a row.

    Attributes:
        rollout: Its tokens.
        norm_sum: Summed norms of its edits.
        num_edited: How often something was added; every layer counts.
        positions: Where something was added, as in `Additions`.
    """

    rollout: Rollout
    norm_sum: float
    num_edited: int
    positions: tuple[int, ...]


def generations(
    cfg: Config, experiment: Experiment, folder: Path, console: Console
) -> pd.DataFrame:
    """All rollouts, one part file a condition.

    Batches are cut from the list of all rollouts of a model, whatever is done already, so a
    resumed run computes the same numbers as an unbroken one.
    """
    whole = folder / "generations.parquet"
    if whole.exists():
        return read_table(whole)
    parts = []
    for model, conditions in experiment.conditions.items():
        paths = [folder / "parts" / f"{model}_{i:04d}.parquet" for i in range(len(conditions))]
        parts += paths
        rows = [
            _Row(number, condition, problem, sample)
            for number, condition in enumerate(conditions)
            for problem in experiment.problems
            for sample in range(experiment.samples[model])
        ]
        size = cfg.ablate.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        missing = [batch for batch in batches if not all(paths[r.number].exists() for r in batch)]
        if not missing:
            continue
        lm = load(getattr(cfg.pair, model), cfg.device)
        beside = _beside(cfg, experiment, model)
        made: dict[int, list[dict[str, Any]]] = {}
        rolled = partial(_roll_out, cfg, experiment, lm, beside, model)
        done = len(rows) - sum(map(len, missing))
        with console.progress(len(rows), "rollouts", f"{model} edited", done=done) as bar:
            found = shared_out(rolled, missing, lm.device)
            for batch, rolled_out in zip(missing, found, strict=True):
                for row, one in zip(batch, rolled_out, strict=True):
                    # Here and not by a worker: answers are graded by a process of this one.
                    record = _record(experiment, lm, model, row, one)
                    made.setdefault(row.number, []).append(record)
                for number in sorted({row.number for row in batch}):
                    records = made[number]
                    if len(records) < len(rows) // len(conditions):
                        continue
                    if not paths[number].exists():
                        records.sort(key=lambda r: (r["problem_id"], r["sample"]))
                        write_table(paths[number], pd.DataFrame(records))
                    del made[number]
                bar.advance(len(batch))
    rollouts = pd.concat([read_table(path) for path in parts], ignore_index=True)
    write_table(whole, rollouts)
    return rollouts


def _beside(cfg: Config, experiment: Experiment, model: str) -> Beside | None:
    """The other model, where the code that is edited is of both."""
    if not is_joint(cfg):
        return None
    other = next(name for name in MODELS if name != model)
    return Beside(load(getattr(cfg.pair, other), cfg.device), list(experiment.dictionaries[model]))


def _roll_out(
    cfg: Config,
    experiment: Experiment,
    lm: LanguageModel,
    beside: Beside | None,
    model: str,
    batch: Sequence[_Row],
) -> list[_RolledOut]:
    """One batch, in the rows' order; they may be under different conditions."""
    begun = experiment.begun[model]
    begun_ids = encode_response(lm.tokenizer, begun)[0]
    conditions = list(dict.fromkeys(row.condition for row in batch))
    which = torch.tensor([conditions.index(row.condition) for row in batch])
    keys = torch.tensor(
        [[cfg.ablate.seed, row.problem.key, _OWN_NOISE + row.sample] for row in batch],
        device=lm.device,
    )
    timing = Timing(
        [row.condition.positions for row in batch],
        keys,
        {
            place: experiment.listener(row.problem.prompt)
            for place, row in enumerate(batch)
            if row.condition.positions.kind == OPPORTUNITIES
        },
        lm.decode,
        begun,
    )
    edits = RowEdits(
        [condition.intervention for condition in conditions],
        which,
        {layer: (d.encode_sparse, d.W_dec) for layer, d in experiment.dictionaries[model].items()},
        when=timing,
        others=None if beside is None else beside.residuals_at,
    )
    rollouts: list[Rollout] = sorted(
        generate(
            lm,
            [encode_prompt(lm.tokenizer, r.problem.prompt) + begun_ids for r in batch],
            sampler=timing.following(keyed_sampler(keys, cfg.ablate.temperature)),
            max_new_tokens=cfg.ablate.max_new_tokens,
            batch_size=len(batch),
            edits=edits.by_layer,
            beside=beside,
        ),
        key=lambda rollout: rollout.row,
    )
    # The token that ends a rollout is predicted from an edited position too.
    added = edits.additions(torch.tensor([len(r.token_ids) + (not r.truncated) for r in rollouts]))
    return [
        _RolledOut(rollout, norm_sum, times, positions)
        for rollout, norm_sum, times, positions in zip(
            rollouts,
            added.norm_sums.tolist(),
            added.num_edited.tolist(),
            added.positions,
            strict=True,
        )
    ]


def _record(
    experiment: Experiment, lm: LanguageModel, model: str, row: _Row, made: _RolledOut
) -> dict[str, Any]:
    """A row of the table."""
    rollout, condition = made.rollout, row.condition
    begun_ids = encode_response(lm.tokenizer, experiment.begun[model])[0]
    text = lm.decode([*begun_ids, *rollout.token_ids])
    judged = experiment.annotate[model](row.problem.prompt, text, rollout.truncated)
    return {
        "model": model,
        "layer": condition.layers,
        "latents": condition.latent_names,
        "edit": condition.edit,
        "dose": condition.dose,
        "set_size": condition.set_size,
        "first": condition.first,
        "where": condition.where,
        "found_by": condition.found_by,
        "condition": condition.kind,
        "draw": condition.draw,
        "behaviour": condition.behaviour,
        "problem_id": row.problem.problem_id,
        "sample": row.sample,
        "prompt": row.problem.prompt,
        "text": text,
        "correct": judged.correct,
        "truncated": rollout.truncated,
        "num_tokens": len(rollout.token_ids),
        "spans": [asdict(span) for span in judged.spans],
        "is_right": list(judged.is_right),
        "opportunities": [asdict(opportunity) for opportunity in judged.opportunities],
        "norm_sum": made.norm_sum,
        "num_edited": made.num_edited,
        "edited_positions": list(made.positions),
        "num_edited_positions": len(made.positions),
    }
