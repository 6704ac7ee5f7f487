"""A reader under attack: the text that it has read, and what it makes of other text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int

from sae_reasoning.behaviours.matched_windows import MatchedWindows
from sae_reasoning.behaviours.streams import SparseMaxima
from sae_reasoning.behaviours.windows import Rows, cell_index
from sae_reasoning.records import REPORT, SELECT, SPAN_DETECTORS, Shortlist, Trace
from sae_reasoning.robustness.outcomes import RANDOM, Attack, Target, Thresholds, judge
from sae_reasoning.stats import kept_auroc


@dataclass(frozen=True)
class Text:
    """Tokens, and the windows of them that are looked at.

    Attributes:
        token_ids: To be read.
        windows: First token and one past the last of each.
        problem: Problem of the text.
        prefix: Tokens, before all windows, with which other texts that are read with it begin too.
    """

    token_ids: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
    problem: int
    prefix: int = 0


class LatentModel(Protocol):
    """A model with a dictionary for each layer, as far as attacks need it."""

    def num_latents(self, layer: int) -> int:
        """Width of a layer's dictionary."""
        ...

    def latents_of(
        self, traces: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, Float32[np.ndarray, "row k"], Int[np.ndarray, "row k"]]]:
        """Layer, values and indices of the active latents at each row of some traces."""
        ...

    def window_maxima(
        self, texts: Sequence[Text], latents: Mapping[int, Sequence[int]]
    ) -> Mapping[int, Sequence[Float[np.ndarray, "window latent"]]]:
        """Largest activation of some latents over each window of each text, by layer."""
        ...

    def unexplained(
        self, texts: Sequence[tuple[Sequence[int], int]], layers: Sequence[int]
    ) -> Mapping[int, float]:
        """FVU of each layer's dictionary on texts, each from a token on; NaN without texts."""
        ...

    def is_junction(self, left: int, right: int) -> bool:
        """Whether a word ends between two tokens."""
        ...

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a response's text, and the characters of each."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Their text."""
        ...


@dataclass(frozen=True)
class Reader:
    """A reader with the span detectors that are attacked in it.

    Attributes:
        name: `base`, `rl` or `random-init`.
        behaviours: In the order of cells.
        traces: That it reads.
        rows: Their tokens.
        matched: Spans on the report split, and windows that are matched to them.
        maxima: Over those spans and windows, by layer.
        targets: Span detectors.
        model: Reads other text; loads it where it isn't loaded yet.
    """

    name: str
    behaviours: Sequence[str]
    traces: Sequence[Trace]
    rows: Rows
    matched: MatchedWindows
    maxima: Callable[[int], SparseMaxima]
    targets: Sequence[Target]
    model: Callable[[], LatentModel]

    def cell(self, target: Target, split: str = REPORT) -> int:
        """Of a target's behaviour and writer."""
        return cell_index(self.behaviours.index(target.behaviour), target.writer, split)

    def judge_new_text(
        self,
        target: Target,
        kind: str,
        values: Float[np.ndarray, " window"],
        problem: Int[np.ndarray, " window"],
        thresholds: Thresholds,
        *,
        is_spans: bool,
    ) -> Attack:
        """A target's maxima over new windows against those over the text as it stands.

        Args:
            target: One of the span detectors.
            kind: What was done to the text.
            values: The target's maxima over new windows.
            problem: Of each new window.
            thresholds: What decides.
            is_spans: New windows are spans, compared with windows as they are; else they are no
                spans, and spans as they are are compared with them.
        """
        cell = self.cell(target)
        here = self.matched.intervals.of_cell(cell)
        is_span = self.matched.intervals.is_positive[here]
        maxima = self.maxima(target.layer).columns(cell, np.array([target.latent]))[:, 0]
        new = np.repeat([False, True], [len(maxima), len(values)])
        spans = np.concatenate([is_span, np.zeros(len(values), bool)])
        windows = np.concatenate([~is_span, np.zeros(len(values), bool)])
        is_positive, is_negative = (new, windows) if is_spans else (spans, new)
        kept = kept_auroc(
            np.concatenate([maxima, values]),
            is_positive,
            is_negative,
            np.concatenate([self.matched.intervals.problem[here], problem]),
            np.zeros(len(new), np.int64),
            reference=spans,
            reference_negative=windows,
            keep=thresholds.at.keep,
            num_resamples=thresholds.num_resamples,
            seed=thresholds.seed,
        )
        counts = {"n_pos": int(is_positive.sum()), "n_neg": int(is_negative.sum())}
        return judge(target, kind, kept, thresholds, **counts)


def by_layer(targets: Sequence[Target]) -> list[tuple[Target, list[int]]]:
    """Targets that differ in the latent only: one of them, with all the latents."""
    groups: dict[tuple[str, str, str, int], list[Target]] = {}
    for target in targets:
        key = (target.behaviour, target.reader, target.writer, target.layer)
        groups.setdefault(key, []).append(target)
    return [(own[0], [target.latent for target in own]) for own in groups.values()]


def span_detectors(lists: Shortlist, reader: str) -> list[Target]:
    """The shortlisted span detectors, in one reader."""
    return [
        Target(SPAN_DETECTORS, behaviour, reader, entry.writer, entry.layer, entry.latent)
        for behaviour, entries in lists.span_detectors.items()
        for entry in entries
    ]


def best_span_detectors(
    maxima: Mapping[int, SparseMaxima], lists: Shortlist, behaviours: Sequence[str]
) -> list[Target]:
    """Of an untrained reader, as many a behaviour as are shortlisted.

    Args:
        maxima: Over spans and windows, by layer; span AUROC on the select split chooses.
        lists: Of the trained readers.
        behaviours: In the order of cells.
    """
    targets = []
    for number, behaviour in enumerate(behaviours):
        if not (entries := lists.span_detectors.get(behaviour)):
            continue
        writer = entries[0].writer
        cell = cell_index(number, writer, SELECT)
        scored = [
            (-auroc, layer, latent)
            for layer, own in maxima.items()
            for latent, auroc in enumerate(np.nan_to_num(own.aurocs(cell), nan=0.5).tolist())
        ]
        targets += [
            Target(SPAN_DETECTORS, behaviour, RANDOM, writer, layer, latent)
            for _, layer, latent in sorted(scored)[: len(entries)]
        ]
    return targets
