"""Two models that share a tokenizer, on the same texts: where they'd go apart.

Residuals of all positions of long texts would fill any memory, so they are summarised as they come
(latents, means), and kept where they are asked for only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.logits import head_inputs, logits_of, most_places
from sae_reasoning.edges.lm.read import pack, padded_right, watched


@dataclass(frozen=True)
class Compared:
    """Both models at every position that predicts a token of the responses, text by text.

    Attributes:
        sequence: Which text.
        token: Index of the position in it; it predicts the token after it.
        differs: Whether the two models disagree there.
        divergence: By how much.
        summary: By model, what was made of its residuals.
        means: By model and layer, the mean residual of all places.
        kept: Places whose residuals are kept, ascending.
        residuals: By model and layer, of the kept places.
    """

    sequence: Int[Tensor, " place"]
    token: Int[Tensor, " place"]
    differs: Bool[Tensor, " place"]
    divergence: Float[Tensor, " place"]
    summary: dict[str, Float[Tensor, "place value"]]
    means: dict[str, dict[int, Float[Tensor, " d_model"]]]
    kept: Int[Tensor, " kept"]
    residuals: dict[str, dict[int, Float[Tensor, "kept d_model"]]]

    def residuals_at(
        self, model: str, layer: int, places: Int[Tensor, " some"]
    ) -> Float[Tensor, "some d_model"]:
        """Residuals of some of the kept places."""
        index = torch.searchsorted(self.kept, places)
        if not torch.equal(self.kept[index.clamp_max(len(self.kept) - 1)], places):
            raise IndexError("the residuals of some of these places weren't kept")
        return self.residuals[model][layer][index]


Disagree = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From both models' logits [place, vocab]: whether they differ, and by how much."""

Summarise = Callable[[Mapping[int, Tensor]], Tensor]
"""From residuals by layer [place, d_model]: what is kept of each place [place, value]."""


def places_of(
    lengths: Sequence[int], response_from: Sequence[int]
) -> tuple[Int[Tensor, " place"], Int[Tensor, " place"]]:
    """Text and position of every place, in order: what predicts a token of a response."""
    sizes = torch.tensor(lengths) - torch.tensor(response_from)
    first = torch.tensor(response_from) - 1
    sequence = torch.arange(len(sizes)).repeat_interleave(sizes)
    within = torch.arange(len(sequence)) - (sizes.cumsum(0) - sizes)[sequence]
    return sequence, first[sequence] + within


@torch.no_grad()
def compare(
    models: Mapping[str, LanguageModel],
    sequences: Sequence[Sequence[int]],
    response_from: Sequence[int],
    layers: Sequence[int],
    token_budget: int,
    disagree: Disagree,
    summarise: Summarise,
    is_kept: Bool[Tensor, " place"],
) -> Compared:
    """Read texts with two models.

    Args:
        models: The writer, then the other, by name.
        sequences: Token ids, BOS included.
        response_from: First token of each response; what predicts it is the first place.
        layers: Decoder blocks whose residuals are looked at.
        token_budget: Tokens of one pass, padding included.
        disagree: Compares their predictions.
        summarise: Called with one model's residuals of some places.
        is_kept: Of every place (`places_of`), whether residuals are kept there.
    """
    sequence, token = places_of([len(ids) for ids in sequences], response_from)
    first = torch.searchsorted(sequence, torch.arange(len(sequences) + 1))
    kept, index_of_kept = is_kept.nonzero().flatten(), is_kept.cumsum(0) - 1
    at_once = min(most_places(lm) for lm in models.values())
    differs, divergence = torch.empty(len(token), dtype=torch.bool), torch.empty(len(token))
    summary: dict[str, Tensor] = {}
    means = {x: {n: torch.zeros(lm.facts.d_model) for n in layers} for x, lm in models.items()}
    residuals = {
        x: {n: torch.empty(len(kept), lm.facts.d_model) for n in layers} for x, lm in models.items()
    }
    for rows in pack([len(ids) for ids in sequences], token_budget):
        of_text = [torch.arange(int(first[row]), int(first[row + 1])) for row in rows]
        places = torch.cat(of_text)
        batch_row = torch.cat([torch.full_like(own, n) for n, own in enumerate(of_text)])
        here = is_kept[places]
        read = {}
        for name, lm in models.items():
            token_ids, _ = padded_right(lm, [sequences[row] for row in rows])
            seen: dict[int, Tensor] = {}
            with watched(lm, layers, seen):
                read[name] = head_inputs(lm, {"input_ids": token_ids}, batch_row, token[places])
            own = {n: resid[batch_row, token[places]].float() for n, resid in seen.items()}
            made = summarise(own).cpu()
            summary.setdefault(name, made.new_empty(len(token), made.shape[1]))[places] = made
            for n, resid in own.items():
                means[name][n] += resid.sum(0).cpu() / len(token)
                residuals[name][n][index_of_kept[places[here]]] = resid[here].cpu()
        pieces = [logits_of(lm, read[name], at_once) for name, lm in models.items()]
        for part, logits, others in zip(places.split(at_once), *pieces, strict=True):
            size = min(logits.shape[1], others.shape[1])
            found = disagree(logits[:, :size], others[:, :size].to(logits.device))
            differs[part], divergence[part] = (value.cpu() for value in found)
    return Compared(sequence, token, differs, divergence, summary, means, kept, residuals)
