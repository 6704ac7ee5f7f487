"""Vectors that push the base to each move, with layer and dose chosen on the select split.

Every kind gives a direction a move and layer. Layer and dose are those under which the base finds
what the RL model wrote next likeliest, over the next few tokens, at onsets where the two models
differ: a push that starts the move and spoils what follows gains little. Half of those onsets train
vectors, the other half choose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.config import Config
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.lm.pushed import PushedContinuations
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.jobs.hybrid.material import BASE, ENTRY, RL, Material
from sae_reasoning.steering.vectors import Steer, mean_difference, unit

SAE, MEAN_DIFFERENCE, TRAINED = "sae", "mean-difference", "trained"


@dataclass(frozen=True)
class Vector:
    """What pushes the base to one move.

    Attributes:
        kind: How it was made.
        move: To what.
        layer: Decoder block after which it's added.
        dose: Its size, in multiples of the mean norm of the residual there.
        change: The vector itself.
        gain: Nats a token that it adds to what the RL model wrote next, at onsets that chose it.
        places: How many those are.
    """

    kind: str
    move: str
    layer: int
    dose: float
    change: Float[Tensor, " d_model"]
    gain: float
    places: int

    def push(self, multiple: float = 1.0) -> Steer:
        """The same as something to add, larger or smaller."""
        return Steer(self.layer, self.change * multiple)

    def record(self) -> dict[str, Any]:
        """In JSON's types."""
        return vars(self) | {"change": self.change.tolist()}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Vector":
        """From its record."""
        return cls(**{**record, "change": torch.tensor(record["change"])})


def make_vectors(
    cfg: Config,
    material: Material,
    base: LanguageModel,
    dictionaries: Mapping[int, Dictionary],
    shortlist: Mapping[str, Any],
) -> list[Vector]:
    """The best layer and dose of each kind and move.

    None for a move that the models never differ on, or whose vectors all make what the RL model
    wrote less likely than no push does.
    """
    own = cfg.hybrid
    found = []
    for index, move in enumerate(material.moves, 1):
        here = (material.move == index) & material.seen.differs
        generator = torch.Generator().manual_seed(own.seed)
        places = here.nonzero().flatten()
        places = places[torch.randperm(len(places), generator=generator)][: 2 * own.places]
        if len(places) < 2:
            continue
        train, choose = (
            _continuations(cfg, material, base, half) for half in (places[::2], places[1::2])
        )
        unpushed = float(choose.log_probs(cfg.layers[0], torch.zeros(base.facts.d_model)).mean())
        for kind in own.vectors:
            tried = []
            for layer in cfg.layers:
                norm = float(_at_onsets(material, BASE, index, layer).norm(dim=1).mean())
                for dose, change in _doses(
                    cfg, kind, index, layer, norm, material, dictionaries, shortlist, train
                ):
                    with torch.no_grad():
                        gain = float(choose.log_probs(layer, change).mean()) - unpushed
                    tried.append(Vector(kind, move, layer, dose, change, gain, len(places) // 2))
            best = max(tried, key=lambda one: one.gain, default=None)
            if best and best.gain > 0:
                found.append(best)
    return found


def _continuations(
    cfg: Config, material: Material, base: LanguageModel, places: Tensor
) -> PushedContinuations:
    prefixes, continuations = [], []
    for place in places.tolist():
        token = int(material.seen.token[place])
        token_ids = material.traces[int(material.seen.sequence[place])].token_ids
        prefixes.append(token_ids[: token + 1])
        continuations.append(token_ids[token + 1 : token + 1 + cfg.hybrid.horizon])
    return PushedContinuations(base, prefixes, continuations)


def _doses(
    cfg: Config,
    kind: str,
    index: int,
    layer: int,
    norm: float,
    material: Material,
    dictionaries: Mapping[int, Dictionary],
    shortlist: Mapping[str, Any],
    train: PushedContinuations,
) -> list[tuple[float, Float[Tensor, " d_model"]]]:
    """Vectors to try at one layer, with their sizes; a trained one has a size of its own."""
    own = cfg.hybrid
    start = _mean_difference(material, index, layer)
    if kind == TRAINED:
        change = train_vector(train, layer, start * norm * min(own.doses), own.steps, own.lr * norm)
        return [(float(change.norm()) / norm, change)]
    if kind == SAE:
        rows = _announcers(material, index, layer, dictionaries[layer], shortlist, own.announcers)
        if not len(rows):
            return []
        start = unit(dictionaries[layer].W_dec[rows].float().cpu().mean(0))
    return [(dose, start * dose * norm) for dose in own.doses]


def _mean_difference(material: Material, index: int, layer: int) -> Float[Tensor, " d_model"]:
    """At the move's onsets less elsewhere, as the base reads both.

    At the entry there's no elsewhere: all responses begin alike, and what differs is who reads.
    """
    base = _at_onsets(material, BASE, index, layer)
    if material.moves[index - 1] == ENTRY:
        return mean_difference(_at_onsets(material, RL, index, layer), base)
    elsewhere = material.elsewhere(index)
    return mean_difference(base, material.seen.residuals_at(BASE, layer, elsewhere))


def _at_onsets(
    material: Material, model: str, index: int, layer: int
) -> Float[Tensor, "onset d_model"]:
    places = (material.move == index).nonzero().flatten()
    return material.seen.residuals_at(model, layer, places)


def _announcers(
    material: Material,
    index: int,
    layer: int,
    dictionary: Dictionary,
    shortlist: Mapping[str, Any],
    count: int,
) -> list[int]:
    """The first of the move's announcers; of the entry, what the RL model has more of there."""
    move = material.moves[index - 1]
    if move != ENTRY:
        entries = shortlist["announcers"].get(move, [])
        return list(dict.fromkeys(e["latent"] for e in entries if e["layer"] == layer))[:count]
    means = [
        dictionary.encode(_at_onsets(material, model, index, layer).to(dictionary.device)).mean(0)
        for model in (RL, BASE)
    ]
    more = means[0] - means[1]
    return [int(n) for n in more.argsort(descending=True)[:count] if more[n] > 0]


def train_vector(
    onsets: PushedContinuations,
    layer: int,
    start: Float[Tensor, " d_model"],
    steps: int,
    lr: float,
) -> Float[Tensor, " d_model"]:
    """Climb the mean log-probability of what follows some onsets, from a first vector (Adam)."""
    change = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([change], lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = -onsets.log_probs(layer, change).mean()
            loss.backward()
            optimizer.step()
    return change.detach()


def global_bias(material: Material, layer: int) -> Float[Tensor, " d_model"]:
    """Mean of what the RL model's residual has beyond the base's, on the same tokens, as it is."""
    means = material.seen.means
    return means[RL][layer] - means[BASE][layer]


def by_kind(vectors: Sequence[Vector]) -> dict[str, dict[str, Vector]]:
    """Vectors by kind and move."""
    found: dict[str, dict[str, Vector]] = {}
    for vector in vectors:
        found.setdefault(vector.kind, {})[vector.move] = vector
    return found
