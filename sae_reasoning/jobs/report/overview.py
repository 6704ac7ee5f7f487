"""The first page, from what there is."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.pages import write_page, write_rows
from sae_reasoning.edges.tables import read_table
from sae_reasoning.jobs.report.sources import Sources
from sae_reasoning.report import cards, sections
from sae_reasoning.report.reviews import Review
from sae_reasoning.report.sections import Section
from sae_reasoning.report.verdict import Evidence, Verdict
from sae_reasoning.texts import number


def write_overview(
    cfg: Config,
    sources: Sources,
    verdicts: Sequence[Verdict],
    measures: Sequence[Measure],
    reviews: Sequence[Review],
    folder: Path,
    num_latents: int = 0,
) -> None:
    """Write `index.html`, and the rows behind its figures to `rows/`.

    Args:
        cfg: The experiment.
        sources: What there is.
        verdicts: On each move.
        measures: Of the contrast.
        reviews: Reviewers' calls on the latents.
        folder: Of the report, while it's being made.
        num_latents: Latents that have a page.
    """
    judged = read_json(sources.calibration) if sources.calibration else {}
    calibration = judged.get("calibration")
    shown = _sections(cfg, sources, [one.behaviour for one in verdicts], measures, calibration)
    if reviews:
        shown.append(sections.reviewed(reviews, cfg.rank.bootstrap, cfg.rank.seed))
    for section in shown:
        if section.rows is not None:
            write_rows(folder / "rows" / f"{section.name}.csv", section.rows)
    evidence = [
        {"behaviour": one.behaviour, "verdict": one.verdict} | vars(figure)
        for one in verdicts
        for figure in one.evidence
    ]
    columns = ["behaviour", "verdict", *(one.name for one in fields(Evidence))]
    write_rows(folder / "rows" / "evidence.csv", pd.DataFrame(evidence, columns=columns))
    write_page(
        folder / "index.html",
        "overview.html",
        {
            "title": f"{cfg.pair.name}: overview",
            "pair": cfg.pair.name,
            "headline": cards.headline(verdicts),
            "never": cards.NEVER,
            "calibration": cards.calibration_line(
                calibration, judged.get("margins") == cfg.report.margins
            ),
            "facts": _facts(cfg, sources),
            "summaries": [cards.summary(one, measures) for one in verdicts],
            "cards": [cards.card(one, measures) for one in verdicts],
            "sections": shown,
            "has_latents": num_latents > 0,
            "num_latents": num_latents,
            "number": number,
            "made_from": ", ".join(f"{k} {v}" for k, v in sources.inputs.items()),
        },
    )


def _facts(cfg: Config, sources: Sources) -> list[tuple[str, str]]:
    facts = [
        ("base", Path(cfg.pair.base.path).name),
        ("second (RL) model", Path(cfg.pair.rl.path).name),
        ("experiment", cfg.experiment),
    ]
    if sources.has("traces"):
        counts = sources.manifests["traces"].counts
        facts += [(name, f"{counts[name]:,}") for name in ("traces", "problems") if name in counts]
    return facts


def _sections(
    cfg: Config,
    sources: Sources,
    behaviours: Sequence[str],
    measures: Sequence[Measure],
    calibration: dict[str, Any] | None,
) -> list[Section]:
    here = sources.folder

    def without(name: str, title: str, why: str) -> Section:
        return Section(name, title, "", missing=why)

    return [
        sections.onsets(measures, behaviours),
        sections.execution(measures, behaviours),
        sections.gap_curve(read_table(here / "hybrid" / "hybrid.parquet"))
        if sources.has("hybrid")
        else without("hybrid", sections.HYBRID, sources.missing["hybrid"]),
        sections.attacks(read_table(here / "rank" / "attacks.parquet"))
        if sources.has("rank")
        else without("attacks", sections.ATTACKS, sources.missing["rank"]),
        sections.dictionaries(_quality(cfg, here))
        if sources.has("train")
        else without("dictionaries", sections.DICTIONARIES, sources.missing["train"]),
        sections.calibrated(calibration)
        if calibration
        else without(
            "calibration",
            sections.CALIBRATION,
            f"{cfg.calibrate.output} isn't there: run `make calibrate`, then `make report` again.",
        ),
    ]


def _quality(cfg: Config, here: Path) -> dict[str, Any]:
    """Figures of each dictionary, by reader."""
    found = {}
    for layer in cfg.layers:
        path = here / "train" / cfg.train.readers / f"layer_{layer}" / "quality.json"
        if path.exists():
            found[f"{cfg.train.readers}/layer_{layer}"] = read_json(path)["readers"]
    return found
