"""Rollouts of the steered base under many policies, in the same batches, on the same problems."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from sae_reasoning.config.hybrid import HybridConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import encode_prompt
from sae_reasoning.edges.lm.lockstep import Decision, View, lockstep
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
    for writer, other in ((BASE, RL), (RL, BASE)):
        written = [row for row in batch if row[0].writer == writer]
        if written:
            yield from _written_by(writer, other, steered, written)


def _written_by(
    writer: str, other: str, steered: Steered, batch: Sequence[tuple[Trial, Problem, int]]
) -> Iterator[dict[str, Any]]:
    """Rollouts of one writer; the other reads along, under its own prompts."""
    own, base = steered.options, steered.pair[BASE]
    writes, reads = steered.pair[writer], steered.pair[other]
    trials = list(dict.fromkeys(trial for trial, _, _ in batch))
    place = {trial: number for number, trial in enumerate(trials)}
    prefixes = [prefix_of(writes, problem.prompt, problem.key, n) for _, problem, n in batch]
    others = [encode_prompt(reads.tokenizer, problem.prompt) for _, problem, _ in batch]
    is_alike = all(
        list(prefix.prompt_ids) == ids for prefix, ids in zip(prefixes, others, strict=True)
    )
    policies = RowPolicies(
        [trial.rule for trial in trials],
        torch.tensor([place[trial] for trial, _, _ in batch]),
        noise_keys(Noise(RANDOM_STREAM, own.seed), prefixes),
        num_behaviours=steered.num_classes,
        d_model=base.facts.d_model,
        by_rl=steered.timing.by_rl,
        by_base=steered.timing.by_base,
    )

    def decide(rows: Tensor, step: int, own_view: View, other_view: View) -> Decision:
        views = (own_view, other_view) if writer == BASE else (other_view, own_view)
        return policies(rows, step, *views)

    made = sorted(
        lockstep(
            writes,
            reads,
            [prefix.prompt_ids for prefix in prefixes],
            policy=decide,
            layers=steered.layers,
            sampler=keyed_sampler(noise_keys(Noise(STREAM, own.seed), prefixes), own.temperature),
            max_new_tokens=own.max_new_tokens,
            batch_size=len(batch),
            other_prompts=None if is_alike else others,
        ),
        key=lambda rollout: rollout.row,
    )
    # The token that ends a rollout is predicted, and may be steered, too.
    tally = policies.tally(torch.tensor([len(r.token_ids) + (not r.truncated) for r in made]))
    for rollout, (trial, problem, sample) in zip(made, batch, strict=True):
        text = writes.decode(list(rollout.token_ids))
        yield {
            "policy": trial.policy,
            "vector": trial.vector,
            "writer": writer,
            "budget": trial.budget,
            "draw": trial.draw,
            "problem_id": problem.problem_id,
            "sample": sample,
            "prompt": problem.prompt,
            "text": text,
            "correct": steered.task.grade(problem, text, truncated=rollout.truncated, model=writer),
            "truncated": rollout.truncated,
            "num_tokens": len(rollout.token_ids),
            "num_steered": len(tally.positions[rollout.row]),
            "steered_positions": list(tally.positions[rollout.row]),
            "decided": tally.decided[rollout.row].tolist(),
            "by_rl": trial.rule.when == ORACLE,
        }
