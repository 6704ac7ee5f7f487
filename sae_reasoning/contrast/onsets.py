"""Onset probability by sampling: how often each model starts a behaviour where a sentence starts.

Where nobody can list how a behaviour begins, its probability isn't to be had from logits:

1. Places are drawn from the opportunities of both writers' traces, in strata: those at which a
   writer started a behaviour (rare, and decisive), by behaviour, and those at which it started
   none. How probable it was to draw a place is known.
2. At each place each model continues the text k times, to the end of a sentence, and the task's
   annotator labels the sentence in its context. One draw serves all behaviours.
3. Each place counts one over the probability with which it was drawn (Horvitz and Thompson 1952),
   so the sums over all opportunities are unbiased, whatever the strata. Nothing is conditioned on
   what one of the models happened to sample. Opportunities are counted by the same weights, which
   add up to how many there are where every place is an opportunity for every behaviour; so a
   resample of problems from which much was drawn isn't taken for one with many onsets.

Both models sample under the same noise, which makes their difference more precise.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import Measure, Resampling, compared
from sae_reasoning.contrast.rates import OWN_TRACES, PER_OPPORTUNITY, by_writer, over
from sae_reasoning.contrast.starts import Place
from sae_reasoning.records import BASE, MODELS, REPORT, RL, Annotation, Trace
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Annotator, Opening, Start

MINED_OPENINGS = "opening_probability/per_opportunity"
"""Probability of the mined openings of a behaviour, where they are part of its onsets only."""
OPENING_COVERAGE, OPENING_PRECISION = "openings/coverage", "openings/precision"

UNLABELLED = "onset_probability/unlabelled"
"""Share of drawn places that say nothing, as the annotator read none of a model's continuations."""

Counts = Mapping[tuple[int, int], Mapping[str, float]]
"""By trace and token of a place: of each behaviour, how probably it starts there.

A place that isn't there has no label, and counts for neither model."""


@dataclass(frozen=True)
class DrawnPlace:
    """A place at which models continue a text.

    Attributes:
        trace: Index of the trace.
        token: Index of onset-1 in it.
        char_end: One past the last character before.
        weight: One over the probability with which it was drawn.
    """

    trace: int
    token: int
    char_end: int
    weight: float

    @property
    def key(self) -> tuple[int, int]:
        """Names the place."""
        return self.trace, self.token

    def start(self, trace: Trace) -> Start:
        """What stands before, as what a model goes on from; of no one behaviour."""
        return Start(
            problem=Problem(trace.problem_id, trace.split, trace.prompt),
            writer=trace.writer,
            behaviour="",
            trace_id=trace.trace_id,
            response_ids=trace.token_ids[trace.num_prompt_tokens : self.token + 1],
            text=trace.text[: self.char_end],
            taken=False,
        )


def draw_places(
    traces: Sequence[Trace], places: Sequence[Place], most: int, seed: int
) -> list[DrawnPlace]:
    """Places of the report split, all of them or at most `most`, in the order of the traces.

    At most half are places where a writer started a behaviour, as many of each writer and behaviour
    as there are, or alike many; the others are drawn from those where it started none.

    Args:
        traces: Of both writers.
        places: Their opportunities.
        most: Places to draw.
        seed: Of the draws.
    """
    taken: dict[tuple[int, int], str] = {}
    ends: dict[tuple[int, int], int] = {}
    for place in places:
        key = place.trace, place.opportunity.token
        if traces[place.trace].split != REPORT:
            continue
        ends[key] = place.opportunity.char_end
        if place.opportunity.taken or key not in taken:
            taken[key] = place.behaviour if place.opportunity.taken else ""
    strata: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for key, behaviour in taken.items():
        strata[traces[key[0]].writer, behaviour].append(key)
    onsets = {name: len(own) for name, own in strata.items() if name[1]}
    others = {name: len(own) for name, own in strata.items() if not name[1]}
    num_others = sum(others.values())
    room = most - min(num_others, most - most // 2)
    sizes = shared_evenly(onsets, room)
    sizes |= shared_evenly(others, most - sum(sizes.values()))
    drawn = []
    for name, own in strata.items():
        if size := sizes[name]:
            rng = random.Random(f"onsets/{seed}/{'/'.join(name)}")
            weight = len(own) / size
            drawn += [
                DrawnPlace(*key, char_end=ends[key], weight=weight) for key in rng.sample(own, size)
            ]
    return sorted(drawn, key=lambda one: one.key)


def shared_evenly(sizes: Mapping[tuple[str, str], int], room: int) -> dict[tuple[str, str], int]:
    """How many of each stratum are drawn: alike many, or all that it has; each has one at least."""
    found: dict[tuple[str, str], int] = {}
    left = room
    for number, (name, size) in enumerate(sorted(sizes.items(), key=lambda one: one[1])):
        found[name] = max(min(size, left // (len(sizes) - number)), min(size, 1))
        left -= found[name]
    return found


def labels_at_starts(
    annotator: Annotator, starts: Sequence[Start], responses: Sequence[Unlabelled]
) -> list[str | None]:
    """Of each response the behaviour that starts where a model took over, or "".

    None where the annotator could not label a response.

    Args:
        annotator: Labels whole texts, so it knows what stands before.
        starts: Where.
        responses: Whole, with what the model added.
    """
    different = list(dict.fromkeys(responses))
    found = dict(zip(different, annotator.annotate_all(different).annotations, strict=True))
    return [
        None if annotation is None else _behaviour_from(annotation, start, response.text)
        for start, response in zip(starts, responses, strict=True)
        for annotation in (found[response],)
    ]


def shares_of(labels: Sequence[str | None]) -> dict[str, float] | None:
    """How often each behaviour starts at one place, of labels that are there; None without any."""
    own = [label for label in labels if label is not None]
    if not own:
        return None
    return {name: own.count(name) / len(own) for name in sorted(set(own) - {""})}


def _behaviour_from(annotation: Annotation, start: Start, text: str) -> str:
    before = len(start.text.rstrip())
    place = before + len(text[before:]) - len(text[before:].lstrip())
    return next((span.behaviour for span in annotation.spans if span.char_start == place), "")


def sampled_rates(
    traces: Sequence[Trace],
    places: Sequence[Place],
    drawn: Sequence[DrawnPlace],
    shares: Mapping[str, Counts],
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Onset probability per opportunity, as `rates` has it where it's exact.

    Args:
        traces: Of both writers.
        places: Their opportunities.
        drawn: Those at which models continued the text.
        shares: Of each model and drawn place, the share of continuations that start a behaviour.
        behaviours: Whose rates.
        resampling: Makes intervals.
    """
    lacking = sum(not _is_known(one, shares) for one in drawn) / max(len(drawn), 1)
    found = [Measure("", UNLABELLED, "", "", lacking, lacking, lacking, 1.0, 0, len(drawn))]
    for behaviour in behaviours:
        sums = _weighted(traces, places, drawn, shares, behaviour)
        own = np.stack([sums.mass[:, m, m] for m in range(len(MODELS))], axis=1)
        found += compared(
            resampling, behaviour, OWN_TRACES, over(own, sums.offered), sums.num_drawn
        )
        found += _per_opportunity(PER_OPPORTUNITY, behaviour, sums, resampling)
    return found


def mined_mass(
    traces: Sequence[Trace],
    places: Sequence[Place],
    drawn: Sequence[DrawnPlace],
    masses: Mapping[str, Counts],
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Probability of beginning with a mined opening, exact at each drawn place.

    Args:
        traces: Of both writers.
        places: Their opportunities.
        drawn: Those that were read.
        masses: Of each model and drawn place, the summed probability of a behaviour's openings.
        behaviours: Those with openings.
        resampling: Makes intervals.
    """
    found = []
    for behaviour in behaviours:
        sums = _weighted(traces, places, drawn, masses, behaviour)
        found += _per_opportunity(MINED_OPENINGS, behaviour, sums, resampling)
    return found


def _per_opportunity(
    measure: str, behaviour: str, sums: "_Sums", resampling: Resampling
) -> list[Measure]:
    both = sum(sums.num_drawn)
    of_writer = by_writer(sums.mass, sums.offered)
    return compared(resampling, behaviour, measure, of_writer, (both, both))


def opening_measures(mined: Sequence[Opening]) -> list[Measure]:
    """Share of each writer's spans that its behaviour's openings cover, and how precise they are.

    Both are counts of held-out sentences of the select split, without an interval.

    Args:
        mined: Of some behaviours.
    """
    found = []
    for behaviour in dict.fromkeys(one.behaviour for one in mined):
        own = [one for one in mined if one.behaviour == behaviour and one.num_sentences]
        sentences = sum(one.num_sentences for one in own)
        spans = max((one.num_spans for one in own), default=0)
        right = sum(one.precision * one.num_sentences for one in own)
        for measure, model, value, items in (
            (OPENING_COVERAGE, BASE, sum(one.coverage_base for one in own), spans),
            (OPENING_COVERAGE, RL, sum(one.coverage_rl for one in own), spans),
            (OPENING_PRECISION, "", right / max(sentences, 1), sentences),
        ):
            if items and value == value:
                found.append(
                    Measure(behaviour, measure, model, "", value, value, value, 1.0, 0, items)
                )
    return found


def _is_known(one: DrawnPlace, shares: Mapping[str, Counts]) -> bool:
    return all(one.key in of_model for of_model in shares.values())


@dataclass(frozen=True)
class _Sums:
    """What drawn places of one behaviour add to each problem of the report split.

    Attributes:
        mass: Weighted onsets.
        offered: Weighted opportunities.
        num_drawn: Opportunities that were drawn, of each writer.
    """

    mass: Float[np.ndarray, "problem writer reader"]
    offered: Float[np.ndarray, "problem writer"]
    num_drawn: tuple[int, int]


def _weighted(
    traces: Sequence[Trace],
    places: Sequence[Place],
    drawn: Sequence[DrawnPlace],
    shares: Mapping[str, Counts],
    behaviour: str,
) -> _Sums:
    problems = sorted({trace.problem_id for trace in traces if trace.split == REPORT})
    number = {problem: row for row, problem in enumerate(problems)}
    could = {(p.trace, p.opportunity.token) for p in places if p.behaviour == behaviour}
    mass = np.zeros((len(problems), len(MODELS), len(MODELS)))
    offered = np.zeros((len(problems), len(MODELS)))
    writers = []
    for one in drawn:
        if one.key in could and _is_known(one, shares):
            trace = traces[one.trace]
            row, writer = number[trace.problem_id], MODELS.index(trace.writer)
            writers.append(writer)
            offered[row, writer] += one.weight
            for reader, model in enumerate(MODELS):
                mass[row, writer, reader] += one.weight * shares[model][one.key].get(behaviour, 0.0)
    return _Sums(mass, offered, (writers.count(0), writers.count(1)))
