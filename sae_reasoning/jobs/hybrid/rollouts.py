"""Rollouts of the hybrid under many policies, in the same batches, on the same problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, encode_prompt
from sae_reasoning.edges.lm.lockstep import lockstep
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.jobs.hybrid.material import BASE, RL, Timing
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.steering.policies import ORACLE, Policy, RowPolicies
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.annotate import Annotator


@dataclass(frozen=True, eq=False)
class Trial:
    """One way to steer, to be tried on every problem.

    Attributes:
        policy: Its name.
        vector: Kind of vector, or `-`.
        budget: Share of tokens that it was to steer at most; NaN where it has none.
        rule: What is done.
        samples: Rollouts a problem.
        draw: Which draw of a control.
    """

    policy: str
    vector: str
    budget: float
    rule: Policy
    samples: int
    draw: int = 0


@dataclass(frozen=True)
class Bench:
    """What all rollouts share."""

    cfg: Config
    models: dict[str, LanguageModel]
    timing: Timing
    annotate: Annotator
    num_moves: int


def run_trials(
    bench: Bench,
    trials: Sequence[Trial],
    problems: Sequence[Problem],
    parts: Path,
    console: Console,
    label: str,
) -> pd.DataFrame:
    """Every trial on every problem, one part file a batch.

    Batches are cut from the list of all rollouts, whatever is done already, so a resumed run
    computes the same numbers as an unbroken one; rows of one problem stand together, since a prompt
    that repeats in a batch is read once.
    """
    rows = [
        (trial, problem, sample)
        for problem in problems
        for trial in trials
        for sample in range(trial.samples)
    ]
    size = bench.cfg.hybrid.batch_size
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    made = []
    with console.progress(len(rows), "rollouts", label) as bar:
        for number, batch in enumerate(batches):
            path = parts / f"{label.replace(' ', '_')}_{number:05d}.parquet"
            if not path.exists():
                write_table(path, pd.DataFrame(list(_roll_out(bench, batch))))
            made.append(read_table(path))
            bar.advance(len(batch))
    return pd.concat(made, ignore_index=True)


def _roll_out(
    bench: Bench, batch: Sequence[tuple[Trial, Problem, int]]
) -> Iterator[dict[str, Any]]:
    own, base = bench.cfg.hybrid, bench.models[BASE]
    trials = list(dict.fromkeys(trial for trial, _, _ in batch))
    place = {trial: number for number, trial in enumerate(trials)}
    # Apart from the noise of `traces`, whose outcomes choose the problems that need a move.
    keys = torch.tensor([[own.seed, problem.key, 30_000 + sample] for _, problem, sample in batch])
    policies = RowPolicies(
        [trial.rule for trial in trials],
        torch.tensor([place[trial] for trial, _, _ in batch]),
        keys,
        num_moves=bench.num_moves,
        d_model=base.facts.d_model,
        by_rl=bench.timing.by_rl,
        by_base=bench.timing.by_base,
    )
    made = sorted(
        lockstep(
            base,
            bench.models[RL],
            [encode_prompt(base.tokenizer, problem.prompt) for _, problem, _ in batch],
            policy=policies,
            layers=bench.cfg.layers,
            sampler=keyed_sampler(keys, own.temperature),
            max_new_tokens=own.max_new_tokens,
            batch_size=len(batch),
        ),
        key=lambda rollout: rollout.row,
    )
    # The token that ends a rollout is predicted, and may be steered, too.
    tally = policies.tally(torch.tensor([len(r.token_ids) + (not r.truncated) for r in made]))
    for rollout, (trial, problem, sample) in zip(made, batch, strict=True):
        text = base.decode(list(rollout.token_ids))
        yield {
            "policy": trial.policy,
            "vector": trial.vector,
            "budget": trial.budget,
            "draw": trial.draw,
            "problem_id": problem.problem_id,
            "sample": sample,
            "prompt": problem.prompt,
            "text": text,
            "correct": bench.annotate(problem.prompt, text, rollout.truncated).correct,
            "truncated": rollout.truncated,
            "num_tokens": len(rollout.token_ids),
            "num_steered": len(tally.positions[rollout.row]),
            "steered_positions": list(tally.positions[rollout.row]),
            "decided": tally.decided[rollout.row].tolist(),
            "by_rl": trial.rule.when == ORACLE,
        }
