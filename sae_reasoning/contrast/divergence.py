"""Where the models differ: KL(RL‖base) on the RL model's text, by what stands at each token.

Every token of a response is one of four: the onset of a behaviour, the rest of its span, the first
token of another sentence, or any other. What the two models predict before it is compared. If
training changed when a behaviour starts, divergence gathers at its onsets; if it changed how the
behaviour is carried out, within its spans. Evidence beside the verdict: nothing is decided by it.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from sae_reasoning.contrast.measures import Measure, Resampling, by_problem, measure_of, quotient
from sae_reasoning.records import Trace

FROM_BASE = "rl||base"
PLACES = ONSET, WITHIN, OTHER_START, ELSEWHERE = (
    "onset",
    "within the behaviour",
    "other sentence start",
    "elsewhere",
)
"""Conditions: what stands at a token."""
SHARE, TOKENS, MEAN, ENRICHMENT, TOP_DIFFERS = (
    "kl/share",
    "kl/share_of_tokens",
    "kl/nats_a_token",
    "kl/enrichment",
    "kl/likeliest_differs",
)


def sentence_tokens(
    sentences: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]
) -> list[int]:
    """The first token of each sentence, counted within the response.

    Args:
        sentences: Characters of each.
        offsets: Characters of each token of the response.
    """
    ends = [end for _, end in offsets]
    found = (bisect_right(ends, start) for start, _ in sentences)
    return [token for token in found if token < len(offsets)]


def kl_by_place(
    traces: Sequence[Trace],
    starts: Sequence[Sequence[int]],
    nats: Sequence[Float[np.ndarray, " token"]],
    differs: Sequence[np.ndarray],
    behaviours: Sequence[str],
    resampling: Resampling,
) -> list[Measure]:
    """Divergence of all behaviours together (""), and of each, at the four kinds of tokens.

    `kl/share` is the part of all divergence, `kl/enrichment` the mean of a kind over the mean at
    other sentence starts, `kl/likeliest_differs` the share of tokens before which the models' first
    choices differ.

    Args:
        traces: The RL model's.
        starts: First tokens of the sentences of each response.
        nats: Of each response and token, KL(RL‖base).
        differs: Likewise, whether the likeliest tokens differ.
        behaviours: Which.
        resampling: Makes intervals.
    """
    found = []
    problems = [trace.problem_id for trace in traces]
    for name, chosen in [("", behaviours), *((one, [one]) for one in behaviours)]:
        rows = []
        for trace, own, values, others in zip(traces, starts, nats, differs, strict=True):
            kind = _kinds(trace, own, chosen)
            rows.append([np.bincount(kind, w, 4) for w in (values, np.ones(len(kind)), others)])
        sums = by_problem(problems, np.array(rows, float).reshape(len(rows), 12))
        if sums[:, 4].sum():
            found += _measures(name, sums, resampling)
    return found


def _kinds(
    trace: Trace, starts: Sequence[int], behaviours: Sequence[str]
) -> Int[np.ndarray, " token"]:
    kind = np.full(len(trace.token_ids) - trace.num_prompt_tokens, PLACES.index(ELSEWHERE))
    kind[list(starts)] = PLACES.index(OTHER_START)
    for span in trace.spans:
        if span.behaviour in behaviours:
            first, last = (t - trace.num_prompt_tokens for t in (span.token_start, span.token_end))
            kind[first + 1 : last] = PLACES.index(WITHIN)
            kind[first] = PLACES.index(ONSET)
    return kind


def _measures(
    behaviour: str, sums: Float[np.ndarray, "problem 12"], resampling: Resampling
) -> list[Measure]:
    """From the divergence, the tokens and the disagreements of each kind."""
    nats, tokens, differ = np.split(sums, 3, axis=1)
    every = {"nats": nats.sum(1), "tokens": tokens.sum(1)}
    other = PLACES.index(OTHER_START)
    found = []

    def add(measure: str, place: int, *columns: Float[np.ndarray, " problem"]) -> None:
        def statistic(of: np.ndarray) -> np.ndarray:
            value = quotient(of[..., :2])
            if len(columns) == 2:
                return value
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(value / quotient(of[..., 2:]))

        estimate = resampling.estimate(np.stack(columns, axis=1), statistic)
        items = int(tokens[:, place].sum())
        found.append(
            measure_of(behaviour, measure, FROM_BASE, PLACES[place], estimate, 0.95, items)
        )

    for place in np.flatnonzero(tokens.sum(0)).tolist():
        mean = nats[:, place], tokens[:, place]
        add(SHARE, place, nats[:, place], every["nats"])
        add(TOKENS, place, tokens[:, place], every["tokens"])
        add(MEAN, place, *mean)
        add(TOP_DIFFERS, place, differ[:, place], tokens[:, place])
        if place != other and tokens[:, other].any():
            add(ENRICHMENT, place, *mean, nats[:, other], tokens[:, other])
    return found
