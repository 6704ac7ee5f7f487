"""Steering vectors: made and chosen on the select split, compared on the report split."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sae_reasoning.contrast import steered
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.sentences import Sentence
from sae_reasoning.contrast.starts import Begun
from sae_reasoning.contrast.steered import ByProgram, Chosen, Worth
from sae_reasoning.edges.artifacts import write_json
from sae_reasoning.edges.lm.attribute import mean_slope, onset_gradients
from sae_reasoning.edges.lm.load import continuation_ids
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.jobs.contrast.sentences import sentence_at
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.jobs.contrast.value import value_executions, worth_by_completion
from sae_reasoning.records import BASE, REPORT, RL, SELECT, SPLITS, SentenceEnd
from sae_reasoning.steering.timing import without_start
from sae_reasoning.steering.vectors import (
    ASCENT,
    ONSET_PREDICTORS,
    Candidates,
    Direction,
    Steer,
    ascend,
    candidates,
    unit,
)
from sae_reasoning.tasks.protocol import Start


@dataclass(frozen=True)
class _Judged:
    """The starts of a behaviour, by split, where it has been carried out, and what it is worth."""

    starts: Mapping[str, list[Start]]
    until: SentenceEnd
    worth: Worth


def steering(setting: Setting, folder: Path) -> list[Measure]:
    """What the base makes of steering vectors, against controls; writes those that were chosen."""
    own = setting.own
    chosen: list[Chosen] = []
    controls: dict[str, list[Chosen]] = {}
    rng = np.random.default_rng((own.seed, 23))
    judged = _judged(setting)
    for behaviour in setting.behaviours:
        starts = _starts(setting, behaviour, SELECT)
        if not starts or behaviour not in judged:
            continue
        directions, found = _directions(setting, behaviour, starts)
        norms = {layer: one.norm for layer, one in found.items()}
        tried_at, worth = judged[behaviour].starts[SELECT], judged[behaviour].worth
        run = partial(_steered, setting, judged[behaviour].until)
        tried = steered.choose(tried_at, directions, norms, own.doses, run, worth)
        if tried:
            best = tried[0]
            drawn = steered.random_directions(best.layer, len(best.direction), own.controls, rng)
            others = [*drawn, *found[best.layer].permuted]
            chosen.append(best)
            controls[behaviour] = steered.choose(tried_at, others, norms, own.doses, run, worth)
    listed = [vars(one) | {"direction": one.direction.tolist()} for one in chosen]
    write_json(folder / "steering_vectors.json", listed)
    compared: list[Measure] = []
    for best in chosen:
        one, rest = judged[best.behaviour], [other for other in chosen if other is not best]
        if one.starts[REPORT]:
            compared += steered.compare(
                one.starts[REPORT],
                best,
                controls[best.behaviour],
                rest,
                partial(_steered, setting, one.until),
                one.worth,
                setting.resampling,
            )
    return compared


def _judged(setting: Setting) -> dict[str, _Judged]:
    """By behaviour, where it is judged and how: by a program with a chance level, else by value.

    Behaviours whose openings nobody knows are left out: no gradient leads to them.
    """
    task, openings = setting.task, setting.task.openings
    known = [one for one in setting.behaviours if openings and openings.of(one)]
    if not task.missing("judge", "null"):
        by_program = ByProgram(task, setting.own.seed)
        return {
            one: _Judged(
                {split: _starts(setting, one, split) for split in SPLITS},
                task.sentence_end,
                by_program,
            )
            for one in known
        }
    both = value_executions(setting)
    return {
        one: _Judged(
            {SELECT: both.select.of(one)[0], REPORT: both.report.of(one)[0]},
            both.rule,
            worth_by_completion(setting, both, one),
        )
        for one in known
    }


def _starts(setting: Setting, behaviour: str, split: str) -> list[Start]:
    return [s for s in setting.starts if (s.behaviour, s.problem.split) == (behaviour, split)]


def _steered(
    setting: Setting, until: SentenceEnd, starts: Sequence[Start], steers: Sequence[Steer]
) -> list[Sentence]:
    made = setting.respond(
        BASE,
        setting.prefixes(BASE, [Begun(start) for start in starts]),
        "steered",
        setting.own.behaviour_tokens,
        until=until,
        steers=steers,
    )
    return [sentence_at(setting, BASE, *one) for one in zip(starts, made, strict=True)]


def _directions(
    setting: Setting, behaviour: str, starts: Sequence[Start]
) -> tuple[list[Direction], dict[int, Candidates]]:
    """Directions to try for a behaviour, and what each layer gave."""
    assert setting.task.openings is not None
    lm, own, layers = setting.models[BASE], setting.own, setting.cfg.layers
    traces = {trace.trace_id: trace for trace in setting.traces}
    prefixes = [
        traces[s.trace_id].token_ids[: traces[s.trace_id].num_prompt_tokens + len(s.response_ids)]
        for s in starts
    ]
    prefixes += _elsewhere(setting, behaviour, max(len(starts), 2))
    openers = [continuation_ids(lm, opening) for opening in setting.task.openings.of(behaviour)]
    size, count = lm.facts.d_model, len(starts)
    resid = {layer: torch.zeros(len(prefixes), size) for layer in layers}
    slopes = {layer: torch.zeros(len(prefixes), size) for layer in layers}
    wanted = [openers] * len(prefixes)
    for batch in onset_gradients(lm, prefixes, wanted, layers, own.token_budget):
        for layer in layers:
            resid[layer][batch.rows] = batch.residuals[layer].cpu()
            slopes[layer][batch.rows] = batch.gradients[layer].cpu()
    key = f"{own.seed}/{behaviour}"
    found = {
        x: candidates(own.vectors, x, resid[x], slopes[x], count, own.controls, key) for x in layers
    }
    directions = [direction for one in found.values() for direction in one.directions]
    if ASCENT in own.vectors:
        for layer in layers:
            begun = unit(slopes[layer][:count].mean(0))
            climb = partial(mean_slope, lm, prefixes[:count], openers, layer, own.token_budget)
            risen = ascend(begun, found[layer].norm, climb)
            directions.append(Direction(ASCENT, layer, risen))
    if ONSET_PREDICTORS in own.vectors:
        directions += _onset_predictors(setting, behaviour)
    return directions, found


def _elsewhere(setting: Setting, behaviour: str, most: int) -> list[tuple[int, ...]]:
    """Prefixes of the RL model's select traces at which the behaviour doesn't start."""
    rng = random.Random(f"elsewhere/{setting.own.seed}/{behaviour}")
    own = [p for p in setting.places if p.behaviour == behaviour]
    possible = {(p.trace, p.opportunity.token) for p in own}
    taken = {(p.trace, p.opportunity.token) for p in own if p.opportunity.taken}
    every = [
        (index, o.token)
        for index, trace in enumerate(setting.traces)
        if trace.split == SELECT and trace.writer == RL
        for o in trace.opportunities
    ]
    ends = without_start(every, possible, taken)
    drawn = rng.sample(ends, min(len(ends), most))
    return [setting.traces[index].token_ids[: token + 1] for index, token in drawn]


def _onset_predictors(setting: Setting, behaviour: str) -> list[Direction]:
    """The best onset predictors of each layer, averaged."""
    folder = setting.cfg.folder
    shortlist = read_shortlist(folder / "rank")
    found = []
    for name, where in shortlist.dictionaries.items():
        dictionary = load_dictionary(folder / where.folder)
        own = [
            entry.latent
            for entry in shortlist.onset_predictors.get(behaviour, ())
            if entry.dictionary == name
        ][: setting.own.onset_predictors]
        if own and dictionary.layer in setting.cfg.layers:
            rows = dictionary.W_dec[own].float().cpu()
            found.append(Direction(ONSET_PREDICTORS, dictionary.layer, unit(rows.mean(0))))
    return found
