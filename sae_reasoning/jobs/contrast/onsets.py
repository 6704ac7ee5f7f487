"""Onset probability where openings can't all be listed: annotated, sampled, and of mined ones."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial

import numpy as np
import pandas as pd

from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.onsets import (
    Counts,
    DrawnPlace,
    draw_places,
    labels_at_starts,
    mined_mass,
    opening_measures,
    sampled_rates,
    shares_of,
)
from sae_reasoning.contrast.rates import annotated_rates
from sae_reasoning.contrast.starts import noise_key
from sae_reasoning.edges.lm.branch import log_probs_at
from sae_reasoning.edges.lm.load import encode_prompt
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.jobs.contrast.steps import entry_probabilities
from sae_reasoning.records import MODELS
from sae_reasoning.rollouts.respond import prefix_of
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.protocol import Opening, Task
from sae_reasoning.traces.align import under_prompt


def openings_table(task: Task) -> pd.DataFrame:
    """What each mined opening is worth; empty where openings are known beforehand."""
    mined = task.openings.mined if task.openings else ()
    columns = [column.name for column in fields(Opening)]
    return pd.DataFrame([asdict(one) for one in mined], columns=columns)


def sampled_onsets(setting: Setting) -> list[Measure]:
    """Rates per trace from annotated spans, and per opportunity from sampled continuations."""
    drawn = _drawn(setting)
    counts = {
        model: _by_place(
            drawn, setting.parts.json(f"onsets_{model}", partial(_sample, setting, model))
        )
        for model in MODELS
    }
    known = setting.traces, setting.places
    return [
        *annotated_rates(
            *known, entry_probabilities(setting), setting.behaviours, setting.resampling
        ),
        *sampled_rates(*known, drawn, counts, setting.behaviours, setting.resampling),
    ]


def mined_openings(setting: Setting) -> list[Measure]:
    """Probability of the mined openings at the same places, beside what they cover."""
    openings = setting.task.openings
    assert openings is not None
    behaviours = [one for one in setting.behaviours if openings.of(one)]
    drawn = _drawn(setting)
    masses = {
        model: _by_place(
            drawn, setting.parts.json(f"mined_{model}", partial(_read, setting, model))
        )
        for model in MODELS
    }
    return [
        *mined_mass(setting.traces, setting.places, drawn, masses, behaviours, setting.resampling),
        *opening_measures(openings.mined),
    ]


def _drawn(setting: Setting) -> list[DrawnPlace]:
    own = setting.own
    return draw_places(setting.traces, setting.places, own.onset_places, own.seed)


def _by_place(drawn: Sequence[DrawnPlace], rows: Sequence[dict[str, float] | None]) -> Counts:
    return {one.key: row for one, row in zip(drawn, rows, strict=True) if row is not None}


def _sample(setting: Setting, model: str) -> list[dict[str, float] | None]:
    """Of each drawn place, the share of a model's continuations that start each behaviour.

    Those without a label are left out; None where all of them are.
    """
    drawn, size, lm = _drawn(setting), setting.own.onset_samples, setting.models[model]
    setting.console.say(f"contrast: {model} continues {len(drawn):,} places {size} times")
    starts = [one.start(setting.traces[one.trace]) for one in drawn for _ in range(size)]
    prefixes = [
        prefix_of(lm, start.problem.prompt, noise_key(start), row % size, begun=start.response_ids)
        for row, start in enumerate(starts)
    ]
    made = setting.respond(
        model, prefixes, "onsets", setting.own.behaviour_tokens, until=setting.task.sentence_end
    )
    responses = [
        Unlabelled(start.problem, one.text, one.truncated)
        for start, one in zip(starts, made, strict=True)
    ]
    labels = labels_at_starts(setting.task.annotator, starts, responses)
    return [shares_of(labels[row : row + size]) for row in range(0, len(labels), size)]


def _read(setting: Setting, model: str) -> list[dict[str, float]]:
    """Of each drawn place, the summed probability of each behaviour's openings."""
    lm, openings = setting.models[model], setting.task.openings
    assert openings is not None
    words = [(name, text) for name in setting.behaviours for text in openings.of(name)]
    drawn = _drawn(setting)
    of_trace = {
        index: under_prompt(trace, encode_prompt(lm.tokenizer, trace.prompt))
        for index in dict.fromkeys(one.trace for one in drawn)
        for trace in (setting.traces[index],)
    }
    rows = {index: row for row, index in enumerate(of_trace)}
    found = log_probs_at(
        lm,
        [trace.token_ids for trace in of_trace.values()],
        [
            (
                rows[one.trace],
                one.token
                + of_trace[one.trace].num_prompt_tokens
                - setting.traces[one.trace].num_prompt_tokens,
            )
            for one in drawn
        ],
        [[text for _, text in words]] * len(drawn),
        setting.own.token_budget,
    )
    return [
        {
            behaviour: float(
                sum(
                    np.exp(own)
                    for (name, _), own in zip(words, values, strict=True)
                    if name == behaviour
                )
            )
            for behaviour in dict.fromkeys(name for name, _ in words)
        }
        for values in found
    ]
