"""When to steer, fitted on the select split: which behaviour starts, and where two models differ.

The RL model's traces are read by both models. Places are the positions that predict a token of a
response. A place's class is the behaviour whose first token comes next, 0 where none starts. Class
1, `entry`, is the first token of the response: no annotator marks it as a behaviour, but whatever
the RL model does later follows from it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_reasoning.records import BASE, RL, Trace
from sae_reasoning.steering.policies import threshold_for
from sae_reasoning.steering.readout import (
    Foresight,
    LatentReader,
    OnsetClassifier,
    Readout,
    fit_divergence,
    fit_readout,
)

ENTRY = "entry"


@runtime_checkable
class BothModels(Protocol):
    """Both models at every place of some traces.

    Attributes:
        sequence: Which trace.
        token: Index of the place in it.
        differs: Whether the models' likeliest next tokens differ.
        divergence: KL(RL ‖ base) in nats.
        summary: By model, the latents that a readout may use.
        means: By model and layer, the mean residual.
    """

    @property
    def sequence(self) -> Int[Tensor, " place"]: ...  # noqa: D102
    @property
    def token(self) -> Int[Tensor, " place"]: ...  # noqa: D102
    @property
    def differs(self) -> Bool[Tensor, " place"]: ...  # noqa: D102
    @property
    def divergence(self) -> Float[Tensor, " place"]: ...  # noqa: D102
    @property
    def summary(self) -> dict[str, Float[Tensor, "place latent"]]: ...  # noqa: D102
    @property
    def means(self) -> dict[str, dict[int, Float[Tensor, " d_model"]]]: ...  # noqa: D102

    def residuals_at(
        self, model: str, layer: int, places: Int[Tensor, " some"]
    ) -> Float[Tensor, "some d_model"]:
        """Residuals of places where a behaviour starts, or could."""
        ...


@dataclass(frozen=True)
class OnsetClasses:
    """Where behaviours start in some traces: (trace, token of onset-1).

    Attributes:
        behaviours: Classes from 1 on, `entry` first.
        starts: Class of each place at which one starts.
        possible: Places at which any could start.
    """

    behaviours: tuple[str, ...]
    starts: Mapping[tuple[int, int], int]
    possible: frozenset[tuple[int, int]]


def onset_classes(traces: Sequence[Trace], behaviours: Sequence[str]) -> OnsetClasses:
    """Classes of the places of some traces; where two behaviours start, the first counts."""
    classes = ("", ENTRY, *behaviours)
    starts = {(n, trace.num_prompt_tokens - 1): 1 for n, trace in enumerate(traces)}
    for number, trace in enumerate(traces):
        for span in trace.spans:
            if span.behaviour in behaviours:
                place = (number, span.token_start - 1)
                starts.setdefault(place, classes.index(span.behaviour))
    possible = frozenset(
        (n, o.token) for n, trace in enumerate(traces) for o in trace.opportunities
    )
    return OnsetClasses(classes[1:], starts, possible)


def without_start(
    every: Sequence[tuple[int, int]],
    possible: Collection[tuple[int, int]],
    taken: Collection[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Places at which a behaviour doesn't start, to be compared with its onsets.

    Those at which only other behaviours could start, or, where any may start any sentence, those at
    which this one doesn't.

    Args:
        every: (trace, token of onset-1) at which some behaviour could start.
        possible: Those at which this one could.
        taken: Those at which it does.
    """
    others = [place for place in every if place not in possible]
    return others or [place for place in every if place not in taken]


@dataclass(frozen=True)
class OnsetReading:
    """The RL model's select traces, as both models read them.

    Attributes:
        behaviours: Classes from 1 on, `entry` first.
        traces: What was read.
        seen: Both models at every place.
        onset: Class of each place, 0 where nothing starts.
    """

    behaviours: tuple[str, ...]
    traces: Sequence[Trace]
    seen: BothModels
    onset: Int[Tensor, " place"]

    def at_onsets(self, model: str, index: int, layer: int) -> Float[Tensor, "onset d_model"]:
        """One model's residuals where the behaviour of a class starts."""
        return self.seen.residuals_at(model, layer, (self.onset == index).nonzero().flatten())

    def elsewhere(self, index: int) -> Int[Tensor, " place"]:
        """Places at which some behaviour could start and that of a class doesn't; maybe none."""
        behaviour = self.behaviours[index - 1]
        keys = zip(self.seen.sequence.tolist(), self.seen.token.tolist(), strict=True)
        place_of = {key: place for place, key in enumerate(keys)}
        told = [(n, o) for n, trace in enumerate(self.traces) for o in trace.opportunities]
        own = [(n, o) for n, o in told if o.behaviour == behaviour]
        others = without_start(
            sorted({(n, o.token) for n, o in told}),
            {(n, o.token) for n, o in own},
            {(n, o.token) for n, o in own if o.taken},
        )
        found = [place_of[end] for end in others if end in place_of]
        return torch.tensor(found, dtype=torch.int64)

    def usual_opening(self, index: int, openings: Sequence[str]) -> str:
        """The opening with which the RL model most often starts a behaviour, else the first."""
        behaviour = self.behaviours[index - 1]
        said = [
            trace.text[span.char_start : span.char_end]
            for trace in self.traces
            for span in trace.spans
            if span.behaviour == behaviour
        ]
        counts = Counter(
            opening
            for words in said
            for opening in openings
            if words.startswith(opening) and not words[len(opening) : len(opening) + 1].isalnum()
        )
        return counts.most_common(1)[0][0] if counts else openings[0]


@dataclass(frozen=True)
class Timing:
    """When to steer, fitted on the select split.

    Attributes:
        by_rl: From the RL model's latents, which behaviour starts.
        by_base: From the base's latents, where `oracle` would steer and to what.
        thresholds: Of `oracle`, `gate` and `differs`, for each budget.
        found: Counts and thresholds for people, in JSON's types.
    """

    by_rl: OnsetClassifier
    by_base: Foresight
    thresholds: dict[str, list[float]]
    found: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """In JSON's types, exactly; a threshold below all is None."""
        base = self.by_base
        return {
            "by_rl": self.by_rl.readout.record(),
            "by_base": base.readout.record(),
            "divergence": {"weights": base.weights.tolist(), "bias": base.bias},
            "thresholds": {
                when: [value if math.isfinite(value) else None for value in values]
                for when, values in self.thresholds.items()
            },
            "found": self.found,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any], reader: LatentReader) -> "Timing":
        """From its record, and the reader of the latents that it was fitted on."""
        divergence = record["divergence"]
        return cls(
            OnsetClassifier(reader, Readout.of(record["by_rl"])),
            Foresight(
                reader,
                Readout.of(record["by_base"]),
                torch.tensor(divergence["weights"]),
                divergence["bias"],
            ),
            {
                when: [-math.inf if value is None else value for value in values]
                for when, values in record["thresholds"].items()
            },
            record["found"],
        )


def fit_timing(
    reading: OnsetReading, reader: LatentReader, budgets: Sequence[float], seed: int
) -> Timing:
    """Fit both readouts, and for each budget the thresholds above which policies steer."""
    seen, onset = reading.seen, reading.onset
    num_classes, latents = len(reading.behaviours) + 1, seen.summary
    by_rl = OnsetClassifier(reader, fit_readout(latents[RL], onset, num_classes, seed))
    said = by_rl.readout(latents[RL]).argmax(-1)
    steered = torch.where(seen.differs, said, 0)
    is_steered = steered > 0
    by_base = Foresight(
        reader,
        fit_readout(latents[BASE], steered, num_classes, seed),
        *fit_divergence(latents[BASE][is_steered], seen.divergence[is_steered]),
    )
    foreseen = by_base.of_latents(latents[BASE])
    gated = foreseen.behaviours.argmax(-1)
    candidates = {
        "oracle": seen.divergence[is_steered],
        "gate": foreseen.divergence[gated > 0],
        "differs": seen.divergence[seen.differs],
    }
    thresholds = {
        when: [threshold_for(scores, len(onset), budget) for budget in budgets]
        for when, scores in candidates.items()
    }
    found = {
        "places": len(onset),
        "models differ": float(seen.differs.float().mean()),
        "of those, a behaviour is named": float(is_steered.sum() / seen.differs.sum().clamp_min(1)),
        "behaviours": {
            name: _counts(seen, onset == index, said == index, steered == index, gated == index)
            for index, name in enumerate(reading.behaviours, 1)
        },
        "thresholds": {
            name: {
                str(budget): value if math.isfinite(value) else None
                for budget, value in zip(budgets, values, strict=True)
            }
            for name, values in thresholds.items()
        },
    }
    return Timing(by_rl, by_base, thresholds, found)


def _counts(
    seen: BothModels,
    starts: Bool[Tensor, " place"],
    said: Bool[Tensor, " place"],
    steered: Bool[Tensor, " place"],
    gated: Bool[Tensor, " place"],
) -> dict[str, float]:
    """How often one behaviour starts, is named, is steered to and is foreseen."""
    divergence = seen.divergence[steered].mean() if steered.any() else 0.0
    return {
        "starts": int(starts.sum()),
        "models differ": int((starts & seen.differs).sum()),
        "named by the RL model's latents": int((starts & said).sum()),
        "named where nothing or another starts": int((~starts & said).sum()),
        "steered": int(steered.sum()),
        "of those, foreseen by the base's latents": int((steered & gated).sum()),
        "foreseen where nothing or another is steered to": int((~steered & gated).sum()),
        "mean divergence where steered, nats": float(divergence),
    }
