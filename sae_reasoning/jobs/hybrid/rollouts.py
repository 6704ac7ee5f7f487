"""Rollouts of the steered base under many policies, in the same batches, on the same problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from sae_reasoning.config.hybrid import HybridConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.lockstep import lockstep
from sae_reasoning.records import BASE, RL
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.rollouts.respond import noise_keys, prefix_of
from sae_reasoning.steering.noise import Noise, keyed_sampler
from sae_reasoning.steering.policies import ORACLE, RowPolicies
from sae_reasoning.steering.timing import Timing
from sae_reasoning.steering.trials import Trial
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Task

STREAM, RANDOM_STREAM = "hybrid", "hybrid/random"
"""Noise of tokens, and of the positions at which `random` steers."""


@dataclass(frozen=True)
class Steered:
    """What all rollouts of a steered base share.

    Attributes:
        pair: The base writes, the RL model reads along.
        task: Grades.
        timing: When to steer.
        layers: Decoder blocks whose latents timing reads.
        num_classes: Of behaviours, none included.
        options: Of the stage.
    """

    pair: LoadedPair
    task: Task
    timing: Timing
    layers: Sequence[int]
    num_classes: int
    options: HybridConfig


def run_trials(
    steered: Steered,
    trials: Sequence[Trial],
    problems: Sequence[Problem],
    parts: Parts,
    console: Console,
    label: str,
) -> pd.DataFrame:
    """Every trial on every problem, one part a batch.

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
    size = steered.options.batch_size
    made = []
    with console.progress(len(rows), "rollouts", label) as bar:
        for number, start in enumerate(range(0, len(rows), size)):
            batch = rows[start : start + size]
            made.append(
                parts.table(
                    f"{label}_{number:05d}",
                    lambda batch=batch: pd.DataFrame(list(_roll_out(steered, batch))),  # type: ignore[misc]
                )
            )
            bar.advance(len(batch))
    return pd.concat(made, ignore_index=True)


def _roll_out(
    steered: Steered, batch: Sequence[tuple[Trial, Problem, int]]
) -> Iterator[dict[str, Any]]:
    own, base = steered.options, steered.pair[BASE]
    trials = list(dict.fromkeys(trial for trial, _, _ in batch))
    place = {trial: number for number, trial in enumerate(trials)}
    prefixes = [prefix_of(base, problem.prompt, problem.key, n) for _, problem, n in batch]
    policies = RowPolicies(
        [trial.rule for trial in trials],
        torch.tensor([place[trial] for trial, _, _ in batch]),
        noise_keys(Noise(RANDOM_STREAM, own.seed), prefixes),
        num_behaviours=steered.num_classes,
        d_model=base.facts.d_model,
        by_rl=steered.timing.by_rl,
        by_base=steered.timing.by_base,
    )
    made = sorted(
        lockstep(
            base,
            steered.pair[RL],
            [prefix.prompt_ids for prefix in prefixes],
            policy=policies,
            layers=steered.layers,
            sampler=keyed_sampler(noise_keys(Noise(STREAM, own.seed), prefixes), own.temperature),
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
            "correct": steered.task.grade(problem, text, truncated=rollout.truncated, model=BASE),
            "truncated": rollout.truncated,
            "num_tokens": len(rollout.token_ids),
            "num_steered": len(tally.positions[rollout.row]),
            "steered_positions": list(tally.positions[rollout.row]),
            "decided": tally.decided[rollout.row].tolist(),
            "by_rl": trial.rule.when == ORACLE,
        }
