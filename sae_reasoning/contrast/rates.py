"""Onset mass: how probable each model finds it that a move starts, at every opportunity.

The mass is exact: the probability of each of the grammar's openings, summed. Over the opportunities
of a model's own thoughts its sum is the expected number of moves that start, without the noise of
sampling whether they do; times the probability of entering thought it is the rate per trace. At the
same opportunities of both writers' thoughts it is what each model would do there, given that the
trace is thinking: nothing is conditioned on what one of them happened to sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import BASE, MODELS, Measure, Resampling, compared, share
from sae_reasoning.records import Trace

PER_TRACE, GIVEN_THINKING, OWN_THOUGHTS, ENTRY = (
    "onset_mass/per_trace",
    "onset_mass/per_opportunity",
    "onset_mass/per_opportunity_own",
    "entry_mass",
)
OCCURS = "occurs"
"""Share of rollouts, made to think, in which a move was seen to start."""


@dataclass(frozen=True)
class Place:
    """An opportunity in a thought.

    Attributes:
        thought: Index of the thought.
        behaviour: Move that could start.
        char_end: One past the last character before it.
        token: Index of onset-1.
        taken: Whether the writer started it.
    """

    thought: int
    behaviour: str
    char_end: int
    token: int
    taken: bool


def places_of(thoughts: Sequence[Trace], behaviours: Sequence[str]) -> list[Place]:
    """Opportunities of some moves, in the order of the thoughts."""
    return [
        Place(index, o.behaviour, o.char_end, o.token, o.taken)
        for index, thought in enumerate(thoughts)
        for o in thought.opportunities
        if o.behaviour in behaviours
    ]


def rates(
    thoughts: Sequence[Trace],
    places: Sequence[Place],
    masses: Mapping[str, Float[np.ndarray, " place"]],
    entries: Mapping[str, Mapping[str, float]],
    behaviours: Sequence[str],
    how: Resampling,
) -> list[Measure]:
    """Rates of every move: per trace, and per opportunity given that the trace is thinking.

    Args:
        thoughts: Rollouts of both writers that were made to think, as many a problem; those of
            the report split count.
        places: Their opportunities.
        masses: Of each model, the mass at each place.
        entries: Of each model, the probability of entering thought, by problem.
        behaviours: Moves.
        how: Makes intervals.
    """
    problems = sorted({thought.problem_id for thought in thoughts if thought.split == "report"})
    number = {problem: index for index, problem in enumerate(problems)}
    written = np.zeros((len(problems), len(MODELS)))
    for thought in thoughts:
        if thought.split == "report":
            written[number[thought.problem_id], MODELS.index(thought.writer)] += 1
    entered = np.array([[entries[model][problem] for model in MODELS] for problem in problems])
    once = np.ones(entered.shape)
    found = compared(
        how,
        "",
        ENTRY,
        _over(entered, once),
        (len(problems), len(problems)),
    )
    for behaviour in behaviours:
        # [problem, writer, reader]: mass over opportunities; [problem, writer]: opportunities.
        mass = np.zeros((len(problems), len(MODELS), len(MODELS)))
        offered = np.zeros((len(problems), len(MODELS)))
        for index, place in enumerate(places):
            thought = thoughts[place.thought]
            if (place.behaviour, thought.split) == (behaviour, "report"):
                row, writer = number[thought.problem_id], MODELS.index(thought.writer)
                offered[row, writer] += 1
                for reader, model in enumerate(MODELS):
                    mass[row, writer, reader] += masses[model][index]
        own = np.stack([mass[:, m, m] for m in range(len(MODELS))], axis=1)
        expected = entered * own / np.maximum(written, 1)
        both = (int(offered[:, 0].sum()), int(offered[:, 1].sum()))
        found += compared(
            how,
            behaviour,
            PER_TRACE,
            _over(expected, once),
            (int(written[:, 0].sum()), int(written[:, 1].sum())),
        )
        found += compared(
            how,
            behaviour,
            OWN_THOUGHTS,
            _over(own, offered),
            both,
        )
        found += compared(
            how, behaviour, GIVEN_THINKING, by_writer(mass, offered), (sum(both), sum(both))
        )
        found.append(_occurs(thoughts, places, behaviour, how))
    return found


def by_writer(
    mass: Float[np.ndarray, "problem writer reader"], offered: Float[np.ndarray, "problem writer"]
) -> Float[np.ndarray, "problem reader writer 2"]:
    """Each reader's mass over the opportunities of each writer, so that writers count the same."""
    of_reader = mass.swapaxes(1, 2)
    shared = np.broadcast_to(offered[:, None], of_reader.shape)
    return np.stack([of_reader, shared], axis=-1)


def _over(
    above: Float[np.ndarray, "problem model"], below: Float[np.ndarray, "problem model"]
) -> Float[np.ndarray, "problem model 1 2"]:
    return np.stack([above, below], axis=-1)[:, :, None]


def _occurs(
    thoughts: Sequence[Trace], places: Sequence[Place], behaviour: str, how: Resampling
) -> Measure:
    """Share of the base's thoughts on report problems in which it started the move."""
    own = [
        index
        for index, thought in enumerate(thoughts)
        if (thought.split, thought.writer) == ("report", BASE)
    ]
    making = {place.thought for place in places if place.behaviour == behaviour and place.taken}
    made = np.array([index in making for index in own], float)
    problems = [thoughts[index].problem_id for index in own]
    return share(how, behaviour, OCCURS, BASE, "", made, problems)
