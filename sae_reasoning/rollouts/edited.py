"""Responses under conditions: of each row its own edit, made where the condition says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.edges.lm.generate import BatchEdits, Beside, EditsOfBatch
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.rollouts.respond import Response, Sampling, noise_keys, prefix_of, respond
from sae_reasoning.steering.conditions import Condition
from sae_reasoning.steering.edits import Encode, RowEdits
from sae_reasoning.steering.positions import OPPORTUNITIES, Timing
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Listen

Codes = Mapping[int, tuple[Encode, Float[Tensor, "d_sae d_model"]]]
"""By layer, how latents are encoded, and the decoder rows."""


@dataclass(frozen=True)
class Row:
    """One response to be written.

    Attributes:
        condition: What is done to the model.
        problem: What is asked.
        sample: Of those with the same problem.
    """

    condition: Condition
    problem: Problem
    sample: int


def respond_edited(
    lm: LanguageModel,
    rows: Sequence[Row],
    sampling: Sampling,
    codes: Codes,
    listen: Callable[[Problem], Listen],
    *,
    begun: str = "",
    beside: Beside | None = None,
) -> list[Response]:
    """Write every row, in their order; rows of one batch may be under different conditions.

    Args:
        lm: The model.
        rows: What is asked, and what is done.
        sampling: How.
        codes: Whose latents are edited.
        listen: Streaming annotator of responses to a problem, for edits at opportunities.
        begun: What every response begins with.
        beside: The other model, where a code reads both.
    """
    asked = {row.problem: prefix_of(lm, row.problem.prompt, 0, begun=begun) for row in rows}
    prefixes = [asked[row.problem].of(row.problem.key, row.sample) for row in rows]
    keys = noise_keys(sampling.noise, prefixes).to(lm.device)
    edits = _edits_of_batch(lm, rows, keys, codes, listen, begun, beside)
    return respond(lm, prefixes, sampling, edits=edits, beside=beside)


def _edits_of_batch(
    lm: LanguageModel,
    rows: Sequence[Row],
    keys: Int[Tensor, "row 3"],
    codes: Codes,
    listen: Callable[[Problem], Listen],
    begun: str,
    beside: Beside | None,
) -> EditsOfBatch:
    positions = [row.condition.positions for row in rows]

    def make(batch: Sequence[int]) -> BatchEdits:
        conditions = list(dict.fromkeys(rows[place].condition for place in batch))
        which = torch.zeros(len(rows), dtype=torch.int64)
        for place in batch:
            which[place] = conditions.index(rows[place].condition)
        listeners = {
            place: listen(rows[place].problem)
            for place in batch
            if positions[place].kind == OPPORTUNITIES
        }
        timing = Timing(positions, keys, listeners, lm.decode, begun)
        edits = RowEdits(
            [condition.intervention for condition in conditions],
            which,
            codes,
            when=timing,
            others=None if beside is None else beside.residuals_at,
        )
        return BatchEdits(edits.by_layer, timing.following, edits.additions)

    return make
