"""The first page, from the stages that were run."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.value import COMPLETION
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.pages import write_page, write_rows
from sae_reasoning.edges.schema import read_artifact
from sae_reasoning.edges.tables import read_table
from sae_reasoning.pages.sources import Sources
from sae_reasoning.report import by_token, cards, checked, elicited, sections
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
        sources: Stages that were run.
        verdicts: On each behaviour.
        measures: Of the contrast.
        reviews: Reviewers' labels of the latents.
        folder: Of the report, while it is made.
        num_latents: Latents that have a page.
    """
    judged = read_json(sources.calibration) if sources.calibration else {}
    calibration = judged.get("calibration")
    judges = (e.judge for one in verdicts for e in one.evidence)
    judge = next((name for name in judges if name not in ("", COMPLETION)), "")
    behaviours = [one.behaviour for one in verdicts]
    shown = [
        sections.onsets(measures, behaviours),
        *by_token.mined(measures, behaviours),
        *_of_execution(measures, behaviours, judge),
        *checked.checked(measures, behaviours),
        *by_token.differences(measures, behaviours),
        *_of_stages(cfg, sources, behaviours, calibration),
    ]
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
    known = judged.get("margins", {})
    has_same_margins = {name: cfg.report.margins.get(name) for name in known} == known
    page = {
        "title": f"{cfg.pair.name}: overview",
        "pair": cfg.pair.name,
        "headline": cards.headline(verdicts),
        "never": cards.NEVER,
        "calibration": cards.calibration_line(calibration, has_same_margins),
        "facts": _facts(cfg, sources),
        "summaries": [cards.summary(one, measures, cfg.report) for one in verdicts],
        "cards": [cards.card(one, measures) for one in verdicts],
        "sections": shown,
        "has_latents": num_latents > 0,
        "num_latents": num_latents,
        "number": number,
        "made_from": ", ".join(f"{k} {v}" for k, v in sources.inputs.items()),
    }
    write_page(folder / "index.html", "overview.html", page)


def _of_execution(
    measures: Sequence[Measure], behaviours: Sequence[str], judge: str
) -> list[Section]:
    """How valid executions are by program, and what they are worth: what was measured of these."""
    by_value = sections.values(measures, behaviours)
    by_program = sections.execution(measures, behaviours, judge)
    if by_value is None:
        return [by_program]
    return [by_program, by_value] if by_program.charts else [by_value]


def _facts(cfg: Config, sources: Sources) -> list[tuple[str, str]]:
    facts = [
        ("base", Path(cfg.pair.base.path).name),
        ("RL model", Path(cfg.pair.rl.path).name),
        ("experiment", cfg.experiment),
    ]
    if sources.has("traces"):
        counts = sources.manifests["traces"].counts
        facts += [(name, f"{counts[name]:,}") for name in ("traces", "problems") if name in counts]
    return facts


def _of_stages(
    cfg: Config, sources: Sources, behaviours: Sequence[str], calibration: dict[str, Any] | None
) -> list[Section]:
    """A section of each stage; of one that wasn't run, why."""

    def of(stage: str, name: str, title: str, make: Callable[[], Section]) -> Section:
        return (
            make()
            if sources.has(stage)
            else Section(name, title, "", missing=sources.missing[stage])
        )

    def table(name: str) -> pd.DataFrame:
        return read_table(sources.folder / f"{name}.parquet")

    made = [
        of("hybrid", "hybrid", sections.HYBRID, lambda: sections.gap_curve(table("hybrid/hybrid"))),
        of(
            "elicit",
            "elicitation",
            elicited.TITLE,
            lambda: elicited.elicited(table("elicit/elicit"), behaviours),
        ),
        of("rank", "attacks", sections.ATTACKS, lambda: sections.attacks(table("rank/attacks"))),
        of(
            "train",
            "dictionaries",
            sections.DICTIONARIES,
            lambda: sections.dictionaries(_quality(cfg, sources.folder)),
        ),
    ]
    if calibration:
        return [*made, sections.calibrated(calibration)]
    missing = f"{cfg.calibrate.output} is missing: run `make calibrate`, then `make report` again."
    return [*made, Section("calibration", sections.CALIBRATION, "", missing=missing)]


def _quality(cfg: Config, folder: Path) -> dict[str, Any]:
    """Figures of each dictionary, by reader."""
    found = {}
    for layer in cfg.layers:
        path = folder / "train" / cfg.train.readers / f"layer_{layer}" / "quality.json"
        if path.exists():
            found[f"{cfg.train.readers}/layer_{layer}"] = read_artifact(path)["readers"]
    return found
