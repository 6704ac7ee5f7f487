"""The steps of the contrast that need models: what they read and write, handed to the measures."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.contrast.checked import checked_spans
from sae_reasoning.contrast.content_loss import content_loss
from sae_reasoning.contrast.execution import execution_accuracy
from sae_reasoning.contrast.faithfulness import (
    accuracy_after,
    asked_to_answer,
    chain_of_thought,
    corrupted,
)
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.pass_at_k import ProblemSamples, baseline_samples, pass_at_k
from sae_reasoning.contrast.rates import rates
from sae_reasoning.contrast.starts import LogProbs, start_at
from sae_reasoning.contrast.summary import weight_measures
from sae_reasoning.contrast.weights import weight_changes
from sae_reasoning.edges.lm.adapter import compared_parameters
from sae_reasoning.edges.lm.branch import log_probs_at, opening_probabilities
from sae_reasoning.edges.lm.load import encode_prompt
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.read import token_log_probs
from sae_reasoning.edges.tables import write_table
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.records import MODELS, REPORT, RL, SPLITS, Trace
from sae_reasoning.rollouts.respond import prefix_of
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.traces.align import Rollout, under_prompt

OnsetLogProbs = Mapping[str, Sequence[Sequence[float]]]
"""Of each model and place, the log-probability of each opening of the place's behaviour."""


def rollouts(setting: Setting) -> list[Trace]:
    """Of both models with the thinking prefix forced; select before report, base before RL."""
    made = []
    for split in SPLITS:
        for model in MODELS:
            make = partial(_roll_out, setting, split, model)
            made += setting.parts.traces(f"{split}_{model}", make)
    return made


def _roll_out(setting: Setting, split: str, model: str) -> list[Trace]:
    setting.console.say(f"contrast: {model} answers {split} problems")
    lm, own = setting.models[model], setting.own
    begun = setting.task.formats[model].thinking_prefix
    rows = [(p, sample) for p in setting.problems[split] for sample in range(own.samples)]
    prefixes = [prefix_of(lm, p.prompt, p.key, sample, begun=begun) for p, sample in rows]
    made = setting.respond(model, prefixes, "rollouts", own.max_new_tokens)
    asked = [Unlabelled(p, one.text, one.truncated) for (p, _), one in zip(rows, made, strict=True)]
    labelled = setting.task.annotate_all(asked, model=model)
    found = []
    for (problem, sample), one, said in zip(rows, made, labelled, strict=True):
        if said is None:  # A language model's answers on it could not be read.
            continue
        ids = one.response_ids
        offsets = offsets_of(lm.tokenizer, ids, one.text)
        rollout = Rollout(one.prefix.prompt_ids, ids, offsets, one.end_id, one.text, one.truncated)
        found.append(
            rollout.annotated(
                problem,
                said,
                annotator=setting.task.annotator.name,
                writer=model,
                model=lm.facts.name,
                sample=f"cot{sample}",
            )
        )
    return found


def onset_log_probs(setting: Setting) -> dict[str, list[list[float]]]:
    """Both models' reading of every opportunity, each under its own prompt."""
    assert setting.task.openings is not None
    openings = setting.task.openings

    def read(model: str) -> list[list[float]]:
        setting.console.say(f"contrast: {model} reads {len(setting.places):,} opportunities")
        lm = setting.models[model]
        own = [under_prompt(t, encode_prompt(lm.tokenizer, t.prompt)) for t in setting.traces]
        moved = [
            here.num_prompt_tokens - trace.num_prompt_tokens
            for here, trace in zip(own, setting.traces, strict=True)
        ]
        return log_probs_at(
            lm,
            [trace.token_ids for trace in own],
            [(p.trace, p.opportunity.token + moved[p.trace]) for p in setting.places],
            [openings.of(place.behaviour) for place in setting.places],
            setting.own.token_budget,
        )

    return {
        model: setting.parts.json(f"log_probs_{model}", partial(read, model)) for model in MODELS
    }


def entry_probabilities(setting: Setting) -> dict[str, dict[str, float]] | None:
    """Of each model, the probability of entering thinking, by report problem.

    None where a model doesn't choose to enter it.
    """
    formats = setting.task.formats
    if not all(formats[model].enters_by_choice for model in MODELS):
        return None
    problems = setting.problems[REPORT]
    found = {}
    for model in MODELS:
        values = opening_probabilities(
            setting.models[model],
            [problem.prompt for problem in problems],
            formats[model].thinking_prefix,
            setting.own.token_budget,
        )
        found[model] = {one.problem_id: value for one, value in zip(problems, values, strict=True)}
    return found


def onset_rates(setting: Setting, log_probs: OnsetLogProbs) -> list[Measure]:
    """Onset probability per trace and per opportunity, on the report split."""
    probabilities = {
        model: np.array([np.exp(own).sum() for own in log_probs[model]]) for model in MODELS
    }
    return rates(
        setting.traces,
        setting.places,
        probabilities,
        entry_probabilities(setting),
        setting.behaviours,
        setting.resampling,
    )


def execution(setting: Setting, log_probs: OnsetLogProbs) -> list[Measure]:
    """What both models make of a behaviour whose opening is written for them."""
    by_start = {model: _by_start(setting, log_probs[model]) for model in MODELS}
    return [
        measure
        for behaviour in setting.behaviours
        for measure in execution_accuracy(
            [start for start in setting.starts if start.behaviour == behaviour],
            by_start,
            setting.continue_,
            setting.task,
            best_of=setting.own.best_of,
            resampling=setting.resampling,
        )
    ]


def _by_start(setting: Setting, log_probs: Sequence[Sequence[float]]) -> LogProbs:
    wanted = {start.key for start in setting.starts}
    found = {}
    for place, values in zip(setting.places, log_probs, strict=True):
        if place.opportunity.taken:
            key = start_at(setting.traces[place.trace], place.opportunity).key
            if key in wanted:
                found[key] = values
    return found


def pass_samples(setting: Setting, folder: Path) -> list[Measure]:
    """pass@k of both models and of the task's random baselines, on report problems.

    Problems of which some answer has no grade are left out.
    """
    made = {
        model: [
            ProblemSamples(**row)
            for row in setting.parts.json(f"samples_{model}", partial(_sample, setting, model))
        ]
        for model in MODELS
    }
    graded = set.intersection(*({one.problem_id for one in own} for own in made.values()))
    problems = [problem for problem in setting.sampled if problem.problem_id in graded]
    if ungraded := len(setting.sampled) - len(problems):
        setting.console.say(
            f"contrast: pass@k leaves out {ungraded} of {len(setting.sampled)} problems, whose "
            "answers have no grade"
        )
    samples = baseline_samples(setting.task, problems)
    for own in made.values():
        samples += [one for one in own if one.problem_id in graded]
    columns = [column.name for column in fields(ProblemSamples)]
    table = pd.DataFrame([asdict(one) for one in samples], columns=columns)
    write_table(folder / "pass.parquet", table)
    return pass_at_k(samples, setting.resampling) if problems else []


def _sample(setting: Setting, model: str) -> list[dict[str, Any]]:
    lm, size = setting.models[model], setting.own.pass_samples
    rows = [(problem, sample) for problem in setting.sampled for sample in range(size)]
    prefixes = [prefix_of(lm, problem.prompt, problem.key, sample) for problem, sample in rows]
    made = setting.respond(model, prefixes, "samples", setting.own.max_new_tokens)
    found = []
    for number, problem in enumerate(setting.sampled):
        own = made[number * size : (number + 1) * size]
        grade = partial(setting.task.grade, problem, model=model)
        grades = [grade(one.text, truncated=one.truncated) for one in own]
        if None in grades:
            continue
        right = sum(map(bool, grades))
        truncated = sum(one.truncated for one in own)
        tokens = sum(len(one.token_ids) for one in own) / size
        samples = ProblemSamples(
            model, problem.problem_id, size, right, truncated, tokens, right / size
        )
        found.append(asdict(samples))
    return found


def corruption(setting: Setting) -> list[Measure]:
    """What the RL model answers after its own chains of thought, whole and corrupted."""
    task, form, lm = setting.task, setting.task.formats[RL], setting.models[RL]
    own = [t for t in setting.traces if (t.split, t.writer) == (REPORT, RL)]
    finished = [trace for trace in own if chain_of_thought(task, trace) is not None]
    chosen = finished[: setting.own.corrupted_traces]
    if len({trace.problem_id for trace in chosen}) < 2:
        return []
    posed = {problem.problem_id: problem for problem in setting.problems[REPORT]}
    rng = random.Random(f"corrupted/{setting.own.seed}")
    versions = [corrupted(task, trace, finished, rng) for trace in chosen]
    grades: dict[str, list[bool | None]] = {}
    for condition in versions[0]:
        prefixes = [
            prefix_of(
                lm,
                trace.prompt,
                posed[trace.problem_id].key,
                index,
                begun=asked_to_answer(version[condition], form),
            )
            for index, (trace, version) in enumerate(zip(chosen, versions, strict=True))
        ]
        made = setting.respond(
            RL, prefixes, "corrupted", setting.own.behaviour_tokens, until=task.sentence_end
        )
        grades[condition] = [
            task.grade(posed[trace.problem_id], one.text, truncated=one.truncated, model=RL)
            for trace, one in zip(chosen, made, strict=True)
        ]
    ungraded = sum(None in own for own in zip(*grades.values(), strict=True))
    if ungraded:
        setting.console.say(
            f"contrast: accuracy after corrupted CoT leaves out {ungraded} of {len(chosen)} chains "
            "of thought, after which some answer has no grade"
        )
    return accuracy_after(grades, chosen, setting.resampling)


def content(setting: Setting) -> list[Measure]:
    """Nats that the base pays beyond the RL model on the content of the RL model's behaviours."""
    own = [t for t in setting.traces if (t.split, t.writer) == (REPORT, RL)]
    ids = [trace.token_ids for trace in own]
    losses = {
        model: [-v for v in token_log_probs(setting.models[model], ids, setting.own.token_budget)]
        for model in MODELS
    }
    tokenizer = setting.models[RL].tokenizer
    offsets = [offsets_of(tokenizer, t.token_ids[t.num_prompt_tokens :], t.text) for t in own]
    return content_loss(setting.task, own, offsets, losses, setting.behaviours, setting.resampling)


def checked(setting: Setting) -> list[Measure]:
    """What a program can check of what behaviours say."""
    check = setting.task.check
    assert check is not None
    return checked_spans(setting.traces, check, setting.behaviours, setting.resampling)


def weights(setting: Setting) -> list[Measure]:
    """How much training changed, by module."""
    before, after = compared_parameters(*(setting.models[m].model for m in MODELS))
    return weight_measures(weight_changes(before, after))
