"""Onset probability: how probable each model finds it that a behaviour starts, where it could.

The probability is exact where a task's openings are closed: that of each opening, summed; elsewhere
it is sampled (`contrast.onsets`), and the rate per trace is that of annotated spans. Over the
opportunities of a model's own traces its sum is the expected number of behaviours that start,
without the noise of sampling whether they do; times the probability of entering thinking it is the
rate per trace. At the same opportunities of both writers' traces it is what each model would do
there, given that the trace is thinking: nothing is conditioned on what one of them happened to
sample.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sae_reasoning.contrast.measures import Measure, Recorder, Resampling, compared
from sae_reasoning.contrast.starts import Place
from sae_reasoning.records import BASE, MODELS, REPORT, Trace

PER_TRACE, PER_OPPORTUNITY, OWN_TRACES, ENTER_THINKING = (
    "onset_probability/per_trace",
    "onset_probability/per_opportunity",
    "onset_probability/per_opportunity_own",
    "enter_thinking",
)
ANNOTATED_PER_TRACE, ANNOTATED_PER_OPPORTUNITY = (
    "annotated/per_trace",
    "annotated/per_opportunity",
)
OCCURS = "occurs"
"""Share of rollouts with the thinking prefix forced in which a behaviour was seen to start."""


def rates(
    traces: Sequence[Trace],
    places: Sequence[Place],
    probabilities: Mapping[str, Float[np.ndarray, " place"]],
    entries: Mapping[str, Mapping[str, float]] | None,
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Rates of every behaviour: per trace, and per opportunity given that the trace is thinking.

    Args:
        traces: Of both writers with the thinking prefix forced, as many a problem; those of the
            report split count.
        places: Their opportunities.
        probabilities: Of each model, the onset probability at each place.
        entries: Of each model, the probability of entering thinking, by problem; None where models
            don't choose to enter it.
        behaviours: Whose rates.
        resampling: Makes intervals.
    """
    problems = sorted({trace.problem_id for trace in traces if trace.split == REPORT})
    number = {problem: index for index, problem in enumerate(problems)}
    written = np.zeros((len(problems), len(MODELS)))
    for trace in traces:
        if trace.split == REPORT:
            written[number[trace.problem_id], MODELS.index(trace.writer)] += 1
    once = np.ones((len(problems), len(MODELS)))
    entered, found = _entered(entries, problems, resampling)
    for behaviour in behaviours:
        # [problem, writer, reader]: expected onsets; [problem, writer]: opportunities.
        mass = np.zeros((len(problems), len(MODELS), len(MODELS)))
        offered = np.zeros((len(problems), len(MODELS)))
        for index, place in enumerate(places):
            trace = traces[place.trace]
            if (place.behaviour, trace.split) == (behaviour, REPORT):
                row, writer = number[trace.problem_id], MODELS.index(trace.writer)
                offered[row, writer] += 1
                for reader, model in enumerate(MODELS):
                    mass[row, writer, reader] += probabilities[model][index]
        own = np.stack([mass[:, m, m] for m in range(len(MODELS))], axis=1)
        expected = entered * own / np.maximum(written, 1)
        both = (int(offered[:, 0].sum()), int(offered[:, 1].sum()))
        found += compared(
            resampling,
            behaviour,
            PER_TRACE,
            over(expected, once),
            (int(written[:, 0].sum()), int(written[:, 1].sum())),
        )
        found += compared(
            resampling,
            behaviour,
            OWN_TRACES,
            over(own, offered),
            both,
        )
        found += compared(
            resampling, behaviour, PER_OPPORTUNITY, by_writer(mass, offered), (sum(both), sum(both))
        )
        found.append(_occurs(traces, places, behaviour, resampling))
    return found


def annotated_rates(
    traces: Sequence[Trace],
    places: Sequence[Place],
    entries: Mapping[str, Mapping[str, float]] | None,
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Rates of every behaviour as it was sampled and annotated, on the report split.

    Annotated spans a trace, times the probability of entering thinking, are the expected starts of
    a rollout where a task can't list all openings of a behaviour.

    Args:
        traces: Of both writers with the thinking prefix forced, as many a problem.
        places: Their opportunities.
        entries: As of `rates`.
        behaviours: Whose rates.
        resampling: Makes intervals.
    """
    report = {index: trace for index, trace in enumerate(traces) if trace.split == REPORT}
    number = {p: row for row, p in enumerate(sorted({t.problem_id for t in report.values()}))}
    cell = {i: (number[t.problem_id], MODELS.index(t.writer)) for i, t in report.items()}
    written = np.zeros((len(number), len(MODELS)))
    for at in cell.values():
        written[at] += 1
    entered, found = _entered(entries, list(number), resampling)
    for behaviour in behaviours:
        spans, taken, offered = (np.zeros(written.shape) for _ in range(3))
        for index, trace in report.items():
            spans[cell[index]] += sum(span.behaviour == behaviour for span in trace.spans)
        for place in places:
            if place.behaviour == behaviour and place.trace in cell:
                offered[cell[place.trace]] += 1
                taken[cell[place.trace]] += place.opportunity.taken
        for measure, above, below in (
            (PER_TRACE, entered * spans, written),
            (ANNOTATED_PER_TRACE, spans, written),
            (ANNOTATED_PER_OPPORTUNITY, taken, offered),
        ):
            items = (int(below[:, 0].sum()), int(below[:, 1].sum()))
            found += compared(resampling, behaviour, measure, over(above, below), items)
        found.append(_occurs(traces, places, behaviour, resampling))
    return found


def by_writer(
    mass: Float[np.ndarray, "problem writer reader"], offered: Float[np.ndarray, "problem writer"]
) -> Float[np.ndarray, "problem reader writer 2"]:
    """Each reader's onsets over each writer's opportunities, so that writers count the same."""
    of_reader = mass.swapaxes(1, 2)
    shared = np.broadcast_to(offered[:, None], of_reader.shape)
    return np.stack([of_reader, shared], axis=-1)


def _entered(
    entries: Mapping[str, Mapping[str, float]] | None,
    problems: Sequence[str],
    resampling: Resampling,
) -> tuple[Float[np.ndarray, "problem model"], list[Measure]]:
    """Probability of entering thinking, 1 where models don't choose to, and its comparison."""
    once = np.ones((len(problems), len(MODELS)))
    if entries is None:
        return once, []
    entered = np.array([[entries[model][problem] for model in MODELS] for problem in problems])
    both = (len(problems), len(problems))
    return entered, compared(resampling, "", ENTER_THINKING, over(entered, once), both)


def over(
    above: Float[np.ndarray, "problem model"], below: Float[np.ndarray, "problem model"]
) -> Float[np.ndarray, "problem model 1 2"]:
    """Numerator and denominator of one part, as `compared` takes them."""
    return np.stack([above, below], axis=-1)[:, :, None]


def _occurs(
    traces: Sequence[Trace], places: Sequence[Place], behaviour: str, resampling: Resampling
) -> Measure:
    """Share of the base's traces on report problems in which it started the behaviour."""
    own = [
        index for index, trace in enumerate(traces) if (trace.split, trace.writer) == (REPORT, BASE)
    ]
    making = {
        place.trace for place in places if place.behaviour == behaviour and place.opportunity.taken
    }
    made = np.array([index in making for index in own], float)
    problems = [traces[index].problem_id for index in own]
    return Recorder(resampling, behaviour, problems).share(OCCURS, BASE, "", made)
