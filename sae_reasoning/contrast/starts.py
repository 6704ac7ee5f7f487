"""Places at which a behaviour is started for a model: those at which the RL model started it."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sae_reasoning.records import RL, TokenOpportunity, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start


class Place(NamedTuple):
    """An opportunity of one of several traces.

    Attributes:
        trace: Index of the trace.
        opportunity: Where a behaviour could start.
    """

    trace: int
    opportunity: TokenOpportunity

    @property
    def behaviour(self) -> str:
        """What could start."""
        return self.opportunity.behaviour


class Begun(NamedTuple):
    """What a model is given that is to go on from a start.

    Attributes:
        start: Where.
        opening: Words of the behaviour that are written for it; "" leaves the model free.
        text: The response up to there where it is another than the start's.
    """

    start: Start
    opening: str = ""
    text: str | None = None


LogProbs = Mapping[str, Sequence[float]]
"""By `Start.key`, a model's log-probability of each of the behaviour's openings."""


def places_of(traces: Sequence[Trace], behaviours: Sequence[str]) -> list[Place]:
    """Opportunities of some behaviours, in the order of the traces."""
    return [
        Place(index, opportunity)
        for index, trace in enumerate(traces)
        for opportunity in trace.opportunities
        if opportunity.behaviour in behaviours
    ]


def start_at(trace: Trace, opportunity: TokenOpportunity) -> Start:
    """The beginning of a trace up to an opportunity."""
    return Start(
        problem=Problem(trace.problem_id, trace.split, trace.prompt),
        writer=trace.writer,
        behaviour=opportunity.behaviour,
        trace_id=trace.trace_id,
        response_ids=trace.token_ids[trace.num_prompt_tokens : opportunity.token + 1],
        text=trace.text[: opportunity.char_end],
        taken=opportunity.taken,
    )


def rl_starts(
    traces: Sequence[Trace],
    places: Sequence[Place],
    behaviours: Sequence[str],
    most: Mapping[str, int],
    seed: int,
) -> list[Start]:
    """Places where the RL model started a behaviour, drawn at random.

    One a trace: a model that goes in circles makes a behaviour again and again.

    Args:
        traces: Of both writers.
        places: Their opportunities.
        behaviours: Of which starts are drawn.
        most: Of each split, starts of a behaviour at most.
        seed: Of the draws.
    """
    chosen = []
    for behaviour in behaviours:
        for split, count in most.items():
            rng = random.Random(f"starts/{seed}/{behaviour}/{split}")
            by_trace: dict[int, list[int]] = {}
            for index, place in enumerate(places):
                trace = traces[place.trace]
                if (place.behaviour, place.opportunity.taken) == (behaviour, True) and (
                    (trace.writer, trace.split) == (RL, split)
                ):
                    by_trace.setdefault(place.trace, []).append(index)
            own = [rng.choice(indices) for indices in by_trace.values()]
            for index in sorted(rng.sample(own, min(count, len(own)))):
                chosen.append(start_at(traces[places[index].trace], places[index].opportunity))
    return chosen


def noise_key(start: Start) -> int:
    """Of the sampling noise at a start, whatever other starts are chosen: 63 bits."""
    name = f"{start.problem.problem_id}/{start.key}"
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8]) >> 1


def own_openings(
    starts: Sequence[Start],
    openings: Sequence[str],
    log_probs: LogProbs,
    seed: int,
) -> list[str]:
    """An opening for each start of one behaviour, drawn as the model itself would draw it.

    Args:
        starts: Where.
        openings: Of the behaviour.
        log_probs: The model's, of each of them, at each start.
        seed: Of the draws.
    """
    rng = np.random.default_rng((seed, 17))
    drawn = []
    for start in starts:
        logs = np.array(log_probs[start.key])
        weights = np.exp(logs - logs.max())
        drawn.append(openings[rng.choice(len(openings), p=weights / weights.sum())])
    return drawn
