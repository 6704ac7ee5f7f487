"""Rollouts of both models under every condition, resumable."""

from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from sae_reasoning.config.ablate import AblateConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import Beside
from sae_reasoning.jobs.ablate.plan import Experiment
from sae_reasoning.records import MODELS, Annotation
from sae_reasoning.rollouts.edited import Row, respond_edited
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.rollouts.respond import Response, Sampling
from sae_reasoning.steering.degeneration import degeneration
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.annotations import Unlabelled

STREAM = "ablate"
"""Name of the sampling noise, which all conditions share."""
_BATCHES = 4
"""Batches of a part: a killed run does at most these again."""


def generations(
    own: AblateConfig, experiment: Experiment, pair: LoadedPair, parts: Parts, console: Console
) -> pd.DataFrame:
    """All rollouts, by condition, problem and sample.

    A part holds some conditions whole, and its batches are cut from it alone, so a resumed run
    computes the same numbers as an unbroken one.
    """
    sampling = Sampling(
        Noise(STREAM, own.seed), own.temperature, own.max_new_tokens, own.batch_size
    )
    made = []
    for model, conditions in experiment.conditions.items():
        rows = [
            [
                Row(condition, problem, sample)
                for problem in sorted(experiment.problems, key=lambda one: one.problem_id)
                for sample in range(experiment.samples[model])
            ]
            for condition in conditions
        ]
        at_once = max(_BATCHES * own.batch_size // len(rows[0]), 1)
        with console.progress(sum(map(len, rows)), "rollouts", f"{model} edited") as bar:
            for first in range(0, len(rows), at_once):
                some = [
                    row for of_condition in rows[first : first + at_once] for row in of_condition
                ]
                make = partial(_roll_out, experiment, pair, model, some, sampling)
                made.append(parts.table(f"{model} {first:04d}", make))
                bar.advance(len(some))
    return pd.concat(made, ignore_index=True)


def _roll_out(
    experiment: Experiment, pair: LoadedPair, model: str, rows: list[Row], sampling: Sampling
) -> pd.DataFrame:
    """Rows of the table, graded and labelled; without those that the annotator could not label."""
    codes = experiment.dictionaries[model]
    beside = None
    if experiment.is_joint:
        other = next(name for name in MODELS if name != model)
        beside = Beside(pair[other], list(codes))
    made = respond_edited(
        pair[model],
        rows,
        sampling,
        {layer: (code.encode_sparse, code.W_dec) for layer, code in codes.items()},
        experiment.listen,
        begun=experiment.begun[model],
        beside=beside,
    )
    responses = [
        Unlabelled(row.problem, one.text, one.truncated)
        for row, one in zip(rows, made, strict=True)
    ]
    labelled = experiment.task.annotate_all(responses, model=model)
    each = zip(rows, made, labelled, strict=True)
    return pd.DataFrame(
        [_record(model, row, one, judged) for row, one, judged in each if judged is not None]
    )


def _record(model: str, row: Row, made: Response, judged: Annotation) -> dict[str, Any]:
    added = made.edited
    assert added is not None
    return {
        "model": model,
        **row.condition.record(),
        "problem_id": row.problem.problem_id,
        "sample": row.sample,
        "prompt": row.problem.prompt,
        "text": made.text,
        **degeneration(made.text)._asdict(),
        "correct": judged.correct,
        "truncated": made.truncated,
        "num_tokens": len(made.token_ids),
        "spans": [asdict(span) for span in judged.spans],
        "is_right": list(judged.is_right),
        "opportunities": [asdict(opportunity) for opportunity in judged.opportunities],
        "norm_sum": added.norm_sum,
        "num_edited": added.num_edited,
        "edited_positions": list(added.positions),
        "num_edited_positions": len(added.positions),
    }
