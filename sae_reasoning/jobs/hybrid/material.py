"""What the select split says of timing: which latents announce which move, and where models differ.

The RL model's traces are read by both models. Places are the positions that predict a token of a
response; a place's class is the move whose first token comes next, 0 where none starts. Class 1,
`entry`, is the first token of the response: what the RL model begins with is no move of the
annotators, but whatever it does later stands on it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.lm.compare import Compared, compare, places_of
from sae_reasoning.edges.lm.load import LanguageModel
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.records import Trace
from sae_reasoning.steering.policies import disagreement, threshold_for
from sae_reasoning.steering.readout import (
    Announcer,
    Foresight,
    LatentReader,
    fit_divergence,
    fit_readout,
)

ENTRY = "entry"
BASE, RL = "base", "rl"


@dataclass(frozen=True)
class Material:
    """Select traces of the RL model, as both models read them.

    Attributes:
        moves: Classes from 1 on.
        traces: What was read.
        seen: Both models at every place; residuals where a move starts, or could.
        move: Class of each place.
    """

    moves: Sequence[str]
    traces: Sequence[Trace]
    seen: Compared
    move: Int[Tensor, " place"]

    def elsewhere(self, move: int) -> Int[Tensor, " place"]:
        """Ends of sentences at which a move can't start: indices of places."""
        behaviour = self.moves[move - 1]
        index = {
            key: number
            for number, key in enumerate(
                zip(self.seen.sequence.tolist(), self.seen.token.tolist(), strict=True)
            )
        }
        found = []
        for number, trace in enumerate(self.traces):
            possible = {o.token for o in trace.opportunities if o.behaviour == behaviour}
            others = {o.token for o in trace.opportunities} - possible
            found += [index[number, token] for token in sorted(others) if (number, token) in index]
        return torch.tensor(found, dtype=torch.int64)


def read_material(
    cfg: Config,
    behaviours: Sequence[str],
    traces: Sequence[Trace],
    models: Mapping[str, LanguageModel],
    reader: LatentReader,
) -> Material:
    """Read the RL model's select traces with both models.

    Of all places `reader`'s latents are kept; residuals where a move starts, or could.

    Raises:
        ConfigError: There are none.
    """
    chosen = [t for t in traces if (t.split, t.writer) == ("select", RL)]
    chosen = chosen[: cfg.hybrid.select_traces]
    if not chosen:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves no trace to the select split; "
            "lower it"
        )
    moves = [ENTRY, *behaviours]
    starts = {(n, trace.num_prompt_tokens - 1): 1 for n, trace in enumerate(chosen)}
    for number, trace in enumerate(chosen):
        for span in trace.spans:
            if span.behaviour in behaviours:
                place = (number, span.token_start - 1)
                starts.setdefault(place, moves.index(span.behaviour) + 1)
    could = {(n, o.token) for n, trace in enumerate(chosen) for o in trace.opportunities}
    first = [trace.num_prompt_tokens for trace in chosen]
    at = places_of([len(trace.token_ids) for trace in chosen], first)
    places = list(zip(*(index.tolist() for index in at), strict=True))
    seen = compare(
        models,
        [trace.token_ids for trace in chosen],
        first,
        cfg.layers,
        cfg.hybrid.token_budget,
        disagreement,
        reader,
        torch.tensor([place in starts or place in could for place in places]),
    )
    return Material(moves, chosen, seen, torch.tensor([starts.get(place, 0) for place in places]))


@dataclass(frozen=True)
class Timing:
    """When to steer, fitted on the select split.

    Attributes:
        by_rl: Says from the RL model's latents which move starts.
        by_base: Foresees from the base's latents where the oracle would steer, and to what.
        thresholds: Of `oracle` and `gate`, for each budget.
        found: What is worth keeping, for people.
    """

    by_rl: Announcer
    by_base: Foresight
    thresholds: dict[str, list[float]]
    found: dict[str, Any]


def latent_reader(
    cfg: Config, dictionaries: Mapping[int, Dictionary], shortlist: Mapping[str, Any]
) -> LatentReader:
    """All shortlisted latents of the config's layers and moves."""
    chosen: dict[int, dict[int, None]] = {layer: {} for layer in dictionaries}
    for lists in (shortlist["announcers"], shortlist["trackers"]):
        for behaviour, entries in lists.items():
            for entry in entries:
                if behaviour in cfg.behaviours and entry["layer"] in chosen:
                    chosen[entry["layer"]][entry["latent"]] = None
    found = {layer: sorted(latents) for layer, latents in chosen.items() if latents}
    if not found:
        raise ConfigError(
            "the shortlist has no latent of these layers and behaviours; name others, or raise "
            "traces.num_problems and run `make rank` again"
        )
    return LatentReader(
        {layer: (d.encode_sparse, d.d_sae) for layer, d in dictionaries.items()}, found
    )


def fit_timing(cfg: Config, material: Material, reader: LatentReader) -> Timing:
    """Fit both readouts, and thresholds for each budget."""
    own, seen, move = cfg.hybrid, material.seen, material.move
    num_moves = len(material.moves) + 1
    latents = seen.summary
    by_rl = Announcer(reader, fit_readout(latents[RL], move, num_moves, own.seed))
    said = by_rl.readout(latents[RL]).argmax(-1)
    steered = torch.where(seen.differs, said, 0)
    foreseen_move = fit_readout(latents[BASE], steered, num_moves, own.seed)
    is_steered = steered > 0
    by_base = Foresight(
        reader,
        foreseen_move,
        *fit_divergence(latents[BASE][is_steered], seen.divergence[is_steered]),
    )
    foreseen = by_base.of_latents(latents[BASE])
    gated = foreseen.moves.argmax(-1)
    candidates = {
        "oracle": seen.divergence[is_steered],
        "gate": foreseen.divergence[gated > 0],
    }
    count = len(move)
    thresholds = {
        when: [threshold_for(scores, count, budget) for budget in own.budgets]
        for when, scores in candidates.items()
    }
    called = {
        name: {
            "starts": int((move == index).sum()),
            "models differ": int(((move == index) & seen.differs).sum()),
            "named by the RL model's latents": int(((move == index) & (said == index)).sum()),
            "named where nothing or another starts": int(((move != index) & (said == index)).sum()),
            "steered": int((steered == index).sum()),
            "of those, foreseen by the base's latents": int(
                ((steered == index) & (gated == index)).sum()
            ),
            "foreseen where nothing or another is steered to": int(
                ((steered != index) & (gated == index)).sum()
            ),
            "mean divergence where steered, nats": float(
                seen.divergence[steered == index].mean() if (steered == index).any() else 0.0
            ),
        }
        for index, name in enumerate(material.moves, 1)
    }
    return Timing(
        by_rl,
        by_base,
        thresholds,
        {
            "places": count,
            "models differ": float(seen.differs.float().mean()),
            "of those, a move is named": float(
                (steered > 0).sum() / seen.differs.sum().clamp_min(1)
            ),
            "moves": called,
            "thresholds": {
                name: {
                    str(budget): value if math.isfinite(value) else None
                    for budget, value in zip(own.budgets, values, strict=True)
                }
                for name, values in thresholds.items()
            },
        },
    )


def opening_of(material: Material, move: int, openings: Sequence[str]) -> str:
    """The opening with which the RL model most often starts a move; if it never does, the first."""
    behaviour = material.moves[move - 1]
    counts = Counter(
        opening
        for trace in material.traces
        for span in trace.spans
        if span.behaviour == behaviour
        for opening in openings
        if trace.text[span.char_start : span.char_end].startswith(f"{opening} ")
    )
    return counts.most_common(1)[0][0] if counts else openings[0]
