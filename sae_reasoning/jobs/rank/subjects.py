"""Readers under attack: the two models, and one that was never trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.behaviours.attacks import attack_span_detector
from sae_reasoning.behaviours.outcomes import RANDOM, Attack, Bars, Target
from sae_reasoning.behaviours.strata import Alike
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Rows, cell_index
from sae_reasoning.config import Config
from sae_reasoning.edges.lm.load import LanguageModel, load
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.jobs.rank.data import RankData, saved_maxima
from sae_reasoning.jobs.rank.rivals import RandomReader
from sae_reasoning.records import SPAN_DETECTORS, Shortlist, Trace


@dataclass(frozen=True)
class Subject:
    """A reader under attack, with the span detectors that are attacked in it.

    Attributes:
        name: `base`, `rl` or `random-init`.
        lm: Loads it.
        traces: That it reads.
        rows: Their tokens.
        drawn: Spans on the report split, and windows that are like them.
        dictionaries: By layer.
        maxima: Over those spans and windows, by layer.
        residuals: Of the rows of some traces, one after the other, by layer.
        targets: Span detectors.
    """

    name: str
    lm: Callable[[], LanguageModel]
    traces: Sequence[Trace]
    rows: Rows
    drawn: Alike
    dictionaries: Mapping[int, Dictionary]
    maxima: Callable[[int], SparseMaxima]
    residuals: Callable[[Sequence[int]], Mapping[int, Float[Tensor, "row d_model"]]]
    targets: Sequence[Target]

    def by_text(self, behaviours: Sequence[str], bars: Bars) -> Iterable[Attack]:
        """The attacks that need no other text than is there."""
        for target, latents in by_layer(self.targets):
            yield from attack_span_detector(
                target,
                latents,
                cell_index(behaviours.index(target.behaviour), target.writer, "report"),
                self.drawn,
                self.maxima(target.layer),
                self.rows.token_id,
                bars,
            )


def by_layer(targets: Sequence[Target]) -> list[tuple[Target, list[int]]]:
    """Targets that differ in the latent only: one of them, with all the latents."""
    groups: dict[tuple[str, str, int], list[Target]] = {}
    for target in targets:
        groups.setdefault((target.behaviour, target.writer, target.layer), []).append(target)
    return [(own[0], [target.latent for target in own]) for own in groups.values()]


def subjects(
    cfg: Config,
    data: RankData,
    lists: Shortlist,
    random: RandomReader,
    parts: Path,
    *,
    is_shared: bool,
) -> list[Subject]:
    """The models with the shortlisted span detectors, and the untrained one with its own.

    One model stays loaded at a time; both where processes are to share them.
    """
    alike_of = saved_maxima(data, parts, "alike")

    @lru_cache(maxsize=len(cfg.pair.readers) if is_shared else 1)
    def loaded(reader: str) -> LanguageModel:
        return load(getattr(cfg.pair, reader), cfg.device)

    def trained(reader: str) -> Subject:
        return Subject(
            name=reader,
            lm=partial(loaded, reader),
            traces=data.traces,
            rows=data.rows,
            drawn=data.labels.alike,
            dictionaries=data.dictionaries,
            maxima=lambda layer: alike_of(reader, layer),
            residuals=lambda traces: {
                layer: data.stores[reader, layer].read(data.rows.indices(traces))
                for layer in cfg.layers
            },
            targets=[
                Target(SPAN_DETECTORS, behaviour, reader, entry.writer, entry.layer, entry.latent)
                for behaviour, entries in lists.span_detectors.items()
                for entry in entries
            ],
        )

    untrained = Subject(
        name=RANDOM,
        lm=lambda: random.lm,
        traces=random.traces,
        rows=random.rows,
        drawn=random.alike,
        dictionaries=random.dictionaries,
        maxima=lambda layer: random.maxima[layer].alike,
        residuals=lambda traces: residuals_in_memory(
            random.lm,
            [random.traces[t].token_ids for t in traces],
            random.rows.first_position[list(traces)],
            cfg.layers,
            cfg.cache.token_budget,
        ),
        targets=_best_of_random(cfg, random, lists),
    )
    return [*map(trained, cfg.pair.readers), untrained]


def _best_of_random(cfg: Config, random: RandomReader, lists: Shortlist) -> list[Target]:
    """Span detectors, as many a behaviour as are shortlisted, by span AUROC on the select split."""
    targets = []
    for number, behaviour in enumerate(cfg.behaviours):
        if not (entries := lists.span_detectors.get(behaviour)):
            continue
        writer = entries[0].writer
        cell = cell_index(number, writer, "select")
        scored = [
            (-auroc, layer, latent)
            for layer, maxima in random.maxima.items()
            for latent, auroc in enumerate(
                np.nan_to_num(maxima.spans.aurocs(cell), nan=0.5).tolist()
            )
        ]
        targets += [
            Target(SPAN_DETECTORS, behaviour, RANDOM, writer, layer, latent)
            for _, layer, latent in sorted(scored)[: len(entries)]
        ]
    return targets
