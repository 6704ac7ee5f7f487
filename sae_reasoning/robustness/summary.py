"""What `rank` shows: tables of the shortlists, headlines, and what the attacks leave of them."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from sae_reasoning.behaviours.baselines import RANDOM_READER, SPARSE_PROBE
from sae_reasoning.behaviours.probes import SPARSE_SIZES
from sae_reasoning.behaviours.scores import SCORES
from sae_reasoning.behaviours.shortlist import findings
from sae_reasoning.config import Config
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS, Shortlist
from sae_reasoning.robustness.baseline_comparison import count_outperforming
from sae_reasoning.robustness.headlines import (
    empty_lists,
    headlines,
    survivors_in_words,
    words_suffice,
)
from sae_reasoning.robustness.outcomes import attack_summary, count_labels
from sae_reasoning.texts import bounded
from sae_reasoning.traces.problems import more_traces


class RankSummary(NamedTuple):
    """What the stage shows.

    Attributes:
        top: The candidates that a person looks at first.
        tables: Title and content of each that isn't empty, by name.
        heads: Rows about the best latent of each list.
        said: What the attacks leave of them, and what that means.
    """

    top: pd.DataFrame
    tables: dict[str, tuple[str, pd.DataFrame]]
    heads: list[list[str]]
    said: list[str]


def summarise_ranking(
    cfg: Config, lists: Shortlist, tables: Mapping[str, pd.DataFrame]
) -> RankSummary:
    """What is said of a ranking.

    Args:
        cfg: Names behaviours and options.
        lists: With labels.
        tables: Of the stage, by name.
    """
    scores, baselines, attacks = tables["scores"], tables["baselines"], tables["attacks"]
    shown = {
        "best latents": (_title(baselines), findings(scores, baselines, lists, cfg.behaviours)),
        "sparse probes": ("span AUROC of probes of k latents", _probes(baselines)),
        "grid": (
            "base against RL: what differs significantly (q < 0.05)",
            _differences(tables["grid"]),
        ),
        "baseline comparison": (
            "latents that significantly outperform a baseline, paired",
            count_outperforming(tables["baseline_comparison"]),
        ),
    }
    for name in (SPAN_DETECTORS, ONSET_PREDICTORS):
        words = name.replace("_", " ")
        refuted = attack_summary(attacks, name)
        shown[f"attacks on {words}"] = (f"{words} refuted, by attack", refuted)
        shown[f"labels of {words}"] = (f"{words}, by label", count_labels(attacks, name))
    heads = headlines(lists, attacks)
    said = [
        f"No {kind} is listed for any behaviour, so none is attacked; {more_traces(cfg)}, or ask "
        "for other behaviours."
        for kind in empty_lists(lists)
    ]
    if survivors := survivors_in_words(attacks):
        said.append(survivors)
    if named := words_suffice(heads, baselines):
        said.append(
            "An n-gram model of the text reaches the best detector's interval for "
            f"{', '.join(named)}: there its AUROC is no sign of more than words."
        )
    return RankSummary(
        _top(scores),
        {name: one for name, one in shown.items() if len(one[1])},
        [[h.behaviour, h.kind, h.latent, h.interval, h.attacks] for h in heads],
        said,
    )


def _probes(baselines: pd.DataFrame) -> pd.DataFrame:
    """The best layer of each size of sparse probe, by the select split."""
    names = {SPARSE_PROBE.format(k): k for k in SPARSE_SIZES}
    own = baselines[baselines.baseline.isin(names) & (baselines.writer == "rl")]
    own = own.sort_values("select_span_auroc", ascending=False)
    best = own.groupby(["behaviour", "reader", "baseline"], sort=False).head(1)
    figure = [bounded(r.span_auroc, r.low, r.high, 3) for r in best.itertuples()]
    table = best.assign(figure=figure, k=best.baseline.map(names)).pivot(
        index=["behaviour", "reader"], columns="k", values="figure"
    )
    table = table.rename(columns={k: f"k = {k}" for k in SPARSE_SIZES}).reset_index()
    return table.astype(object).where(table.notna(), None)


def _differences(grid: pd.DataFrame) -> pd.DataFrame:
    """Per measure and kind of difference: for how many span detectors it is significant."""
    rows = []
    groups = ["measure", "between", "fixed"]
    for key, own in grid.groupby(groups, sort=False):
        up, down = ((own.q < 0.05) & (own.difference * sign > 0) for sign in (1, -1))
        rows.append(
            dict(zip(groups, key, strict=True))
            | {
                "span_detectors": len(own),
                "rl higher": int(up.sum()),
                "base higher": int(down.sum()),
                "median difference": own.difference.median(),
            }
        )
    table = pd.DataFrame(rows)
    return table.astype(object).where(table.notna(), None)


def _title(baselines: pd.DataFrame) -> str:
    """Of the findings: what they are, and what the random reader had to go on."""
    title = "findings on the report split: span AUROC"
    random = baselines[baselines.baseline == RANDOM_READER]
    if random.empty:
        return title
    first = random.iloc[0]
    return (
        f"{title} ({RANDOM_READER}: best layer, {first.steps:,} steps on {first.num_traces:,} "
        "traces with behaviours)"
    )


def _top(scores: pd.DataFrame) -> pd.DataFrame:
    """The candidates that a person looks at first."""
    tested = scores[scores.is_candidate & (scores.split == "report")]
    best = tested.sort_values("span_auroc", ascending=False)
    return best.groupby(["behaviour", "reader", "writer"]).head(10)[SCORES]
