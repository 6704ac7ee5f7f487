"""Attribution of the onset logit: which latents raise a behaviour's first token.

Those that do most are onset predictors.

At onset-1 the residual holds f_j * d_j of latent j; to first order, taking it out changes
log P(the next token starts the behaviour) by -f_j * <gradient, d_j>. The mean over opportunities,
onsets or not, is the latent's attribution: positive is towards the behaviour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
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


class OnsetAttributions:
    """Mean attribution of every latent, by behaviour and writer, while onsets stream by.

    Args:
        onsets: All of them.
        directions: Decoder rows of each layer.
    """

    def __init__(
        self, onsets: Sequence[Onset], directions: Mapping[int, Float[Tensor, "latent d_model"]]
    ) -> None:
        self._directions = directions
        self._keys = sorted({(onset.behaviour, onset.writer) for onset in onsets})
        group = [self._keys.index((onset.behaviour, onset.writer)) for onset in onsets]
        self._group = torch.tensor(group)
        self._totals = {
            layer: torch.zeros(len(self._keys), len(rows), device=rows.device)
            for layer, rows in directions.items()
        }

    def add(
        self,
        layer: int,
        onsets: Sequence[int],
        values: Float[Tensor, "onset k"],
        latents: Int[Tensor, "onset k"],
        gradients: Float[Tensor, "onset d_model"],
    ) -> None:
        """Take a batch of one layer: which onsets, their active latents and their gradients."""
        of_row = self._group[onsets]
        for key in of_row.unique().tolist():
            here = (of_row == key).to(values.device)
            self._totals[layer][key] += attribute(
                values[here], latents[here], gradients[here], self._directions[layer]
            )

    def table(self) -> pd.DataFrame:
        """`onset_attribution` in nats per opportunity, a row a latent, behaviour and writer."""
        columns = ["layer", "latent", "behaviour", "writer", "onset_attribution"]
        blocks = [pd.DataFrame(columns=columns)] if not self._keys else []
        for layer, total in self._totals.items():
            for key, (behaviour, writer) in enumerate(self._keys):
                mean = (total[key] / (self._group == key).sum()).cpu().numpy()
                block = (layer, np.arange(len(mean)), behaviour, writer, mean)
                blocks.append(pd.DataFrame(dict(zip(columns, block, strict=True))))
        return pd.concat(blocks, ignore_index=True)
