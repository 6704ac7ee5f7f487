"""What attacks and baselines say of each shortlisted latent, put beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist
from sae_reasoning.robustness.outcomes import RANDOM


def with_labels(
    lists: Shortlist,
    attacks: pd.DataFrame,
    outperformed: Mapping[tuple[str, str, int, int], Mapping[str, Sequence[str]]],
) -> Shortlist:
    """The same entries with what the attacks and baselines say of them, by reader.

    Args:
        lists: As `draw_up` makes them.
        attacks: With labels.
        outperformed: Baselines that each latent significantly outperforms.
    """
    labels: dict[tuple[str, str, int, int], dict[str, str]] = {}
    for row in attacks[attacks.reader != RANDOM].itertuples():
        latent = (row.shortlist, row.behaviour, row.layer, row.latent)
        labels.setdefault(latent, {})[row.reader] = row.label

    def labelled(name: str) -> dict[str, list[Any]]:
        return {
            behaviour: [
                replace(entry, labels=labels.get(key, {}), outperforms=outperformed.get(key, {}))
                for entry in entries
                for key in [(name, behaviour, entry.layer, entry.latent)]
            ]
            for behaviour, entries in lists.entries_of(name).items()
        }

    return replace(
        lists,
        span_detectors=labelled(SPAN_DETECTORS),
        onset_predictors=labelled(ONSET_PREDICTORS),
    )
