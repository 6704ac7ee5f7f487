"""Vectors that steer to a behaviour, where any behaviour may start any sentence; by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sae_reasoning.edges.lm.compare import Compared
from sae_reasoning.records import BASE, RL, TokenOpportunity, Trace
from sae_reasoning.steering.onset_vectors import VectorSearch, choose_vectors
from sae_reasoning.steering.timing import ENTRY, OnsetReading, without_start

KINDS = ["sae", "mean-difference", "trained"]
DOUBT, CHECK = "doubt", "check"
ALONG = torch.tensor([0.0, 2.0, 0.0])
"""Where the residual goes at an onset of doubt."""


def trace(opportunities: dict[int, dict[str, bool]]) -> Trace:
    """Twelve tokens of response after two of prompt; which behaviours could, and do, start."""
    return Trace(
        trace_id="t",
        problem_id="p0",
        split="select",
        writer=RL,
        model="m",
        prompt="",
        text="",
        token_ids=tuple(range(14)),
        num_prompt_tokens=2,
        correct=None,
        truncated=False,
        spans=(),
        opportunities=tuple(
            TokenOpportunity(behaviour, token, token, taken)
            for token, own in opportunities.items()
            for behaviour, taken in own.items()
        ),
    )


def reading(one: Trace) -> OnsetReading:
    """Both models differ everywhere; residuals at onsets of doubt lie along a direction."""
    onset = torch.zeros(12, dtype=torch.int64)
    onset[0] = 1
    for o in one.opportunities:
        if o.taken:
            onset[o.token - 1] = 2 if o.behaviour == DOUBT else 3
    residuals = torch.tensor([[1.0, 0.0, 0.0]]).repeat(12, 1)
    residuals[onset == 2] += ALONG
    means = {model: {0: residuals.mean(0)} for model in (BASE, RL)}
    seen = Compared(
        torch.zeros(12, dtype=torch.int64),
        torch.arange(1, 13),
        torch.ones(12, dtype=torch.bool),
        torch.ones(12),
        {},
        means,
        torch.arange(12),
        {BASE: {0: residuals}, RL: {0: residuals + 1}},
    )
    return OnsetReading((ENTRY, DOUBT, CHECK), [one], seen, onset)


def continuations(sign: float) -> Callable[[Tensor], Callable[[int, Tensor], Tensor]]:
    """The likelier, the further along; or the less likely."""

    def of(places: Tensor) -> Callable[[int, Tensor], Tensor]:
        return lambda _layer, change: (sign * (change * ALONG).sum()).expand(len(places))

    return of


def choose(one: Trace, sign: float = 1.0, rows: int = 1) -> tuple[set[tuple[str, str]], dict]:
    search = VectorSearch(KINDS, [0], [1.0], 4, 2, 0.1, 0)
    found, lacking = choose_vectors(
        reading(one), search, continuations(sign), lambda *_: ALONG.expand(rows, 3)
    )
    assert all(torch.isfinite(v.change).all() and v.gain > 0 for v in found)
    return {(v.kind, v.behaviour) for v in found}, lacking


def test_where_any_may_start_any_sentence_all_kinds_are_made() -> None:
    starts = {3: True, 5: False, 7: True, 9: False}
    one = trace({token: {DOUBT: is_doubt, CHECK: False} for token, is_doubt in starts.items()})
    assert reading(one).elsewhere(2).tolist() == [4, 8]  # Tokens 5 and 9.
    found, lacking = choose(one)
    assert {kind for kind, behaviour in found if behaviour == DOUBT} == set(KINDS)
    differ = "the models' likeliest tokens differ at fewer than two of its onsets"
    assert lacking["trained, check"] == lacking["sae, entry"] == differ


def test_places_of_other_behaviours_alone_come_first() -> None:
    one = trace({3: {DOUBT: True}, 5: {DOUBT: False}, 7: {CHECK: False}, 9: {CHECK: True}})
    assert reading(one).elsewhere(2).tolist() == [6, 8]
    every = [(0, 3), (0, 5), (1, 3)]
    assert without_start(every, {(0, 3), (1, 3)}, {(0, 3)}) == [(0, 5)]
    assert without_start(every, set(every), {(0, 3)}) == [(0, 5), (1, 3)]


@pytest.mark.parametrize(
    ("taken", "sign", "rows", "reasons"),
    [
        (True, 1.0, 1, {"mean-difference": "no place at which", "trained": "no place at which"}),
        (False, 1.0, 0, {"sae": "no latent is known"}),
        (False, -1.0, 1, dict.fromkeys(KINDS, "no layer and dose makes")),
    ],
)
def test_every_kind_that_has_no_vector_says_why(
    taken: bool, sign: float, rows: int, reasons: dict[str, str]
) -> None:
    starts = {3: True, 5: taken, 7: True, 9: taken}
    found, lacking = choose(
        trace({token: {DOUBT: is_doubt} for token, is_doubt in starts.items()}), sign, rows
    )
    own = {name.split(", ")[0]: said for name, said in lacking.items() if name.endswith(DOUBT)}
    assert own.keys() == reasons.keys()
    assert all(reasons[kind] in said for kind, said in own.items())
    assert {kind for kind, name in found if name == DOUBT} == set(KINDS) - reasons.keys()
