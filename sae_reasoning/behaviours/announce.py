"""Onset predictors: latents that push a behaviour's first token, by attribution of the onset logit.

At onset-1 the residual holds f_j * d_j of latent j; to first order, taking it out changes
log P(the next token starts the behaviour) by -f_j * <gradient, d_j>. The mean over opportunities,
taken or not, is the latent's attribution: positive pushes towards the behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.records import MODELS, Trace


@dataclass(frozen=True)
class Onset:
    """An opportunity whose onset logit is attributed.

    Attributes:
        behaviour: Behaviour that could start.
        writer: Of the trace.
        token_ids: The trace up to onset-1.
    """

    behaviour: str
    writer: str
    token_ids: tuple[int, ...]


def draw_onsets(
    traces: Sequence[Trace], behaviours: Sequence[str], num_onsets: int, seed: int
) -> list[Onset]:
    """Up to `num_onsets` opportunities a behaviour on the select split, half of each writer's."""
    drawn = []
    for number, behaviour in enumerate(behaviours):
        places = {
            writer: [
                (t, o.token)
                for t, trace in enumerate(traces)
                if trace.split == "select" and trace.writer == writer
                for o in trace.opportunities
                if o.behaviour == behaviour
            ]
            for writer in MODELS
        }
        rng = np.random.default_rng((seed, number))
        fewest = min(map(len, places.values()))
        for writer, found in places.items():
            size = max(num_onsets // 2, num_onsets - fewest)
            for i in rng.permutation(len(found))[:size].tolist():
                trace, token = found[i]
                prefix = traces[trace].token_ids[: token + 1]
                drawn.append(Onset(behaviour, writer, prefix))
    return drawn


def shortened(token_ids: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The first token and the last ones, `most` in all; all of them for 0.

    Models attend to the first token from everywhere: without it, activations are ones that the text
    never gives.
    """
    if not most or len(token_ids) <= most:
        return token_ids
    return (*token_ids[: most > 1], *token_ids[len(token_ids) - max(most - 1, 1) :])


def attribute(
    values: Float[Tensor, "onset k"],
    latents: Int[Tensor, "onset k"],
    gradients: Float[Tensor, "onset d_model"],
    directions: Float[Tensor, "latent d_model"],
) -> Float[Tensor, " latent"]:
    """Sum over onsets of activation times gradient along each latent's direction."""
    along = (gradients.float() @ directions.T).gather(1, latents)
    total = torch.zeros(len(directions), device=directions.device)
    return total.index_add_(0, latents.flatten(), (values * along).flatten())
