"""The verdict on each behaviour, from the contrast, and the pages on which people review it.

1. Inputs: the contrast, which the verdict needs, and whatever other stages were run.
2. The verdict on each behaviour: `verdict.json`.
3. The latents: texts, scores and attacks of each shortlisted latent, where `rank` was run.
4. The overview: verdicts and every figure with its rows. All pages open from disk.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.schema import read_artifact, write_artifact
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import LATENTS, VERDICTS, Tracker
from sae_reasoning.opening import open_task
from sae_reasoning.pages.latents import write_latents
from sae_reasoning.pages.overview import write_overview
from sae_reasoning.pages.sources import look, reviews_of
from sae_reasoning.report.cards import over_heuristic
from sae_reasoning.report.verdict import Evidence, Verdict, verdict


def report(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `report/verdict.json` and the pages beside it."""
    sources = look(cfg)
    reviews = reviews_of(cfg, sources)
    with Stage(cfg.folder / "report", cfg.settings("report"), sources.inputs) as stage:
        if made := console.up_to_date(stage):
            return made
        behaviours = cfg.contrast.behaviours or cfg.behaviours
        console.plan(
            "report",
            {
                "verdicts": f"on {', '.join(behaviours)}",
                "made from": ", ".join(sources.manifests),
            }
            | ({"without": ", ".join(sources.missing)} if sources.missing else {}),
        )
        table = read_table(cfg.folder / "contrast" / "contrast.parquet")
        measures = [Measure(**row) for row in table.to_dict("records")]
        task = open_task(cfg)
        judge = task.judge.name if task.judge else ""
        lacking = read_artifact(cfg.folder / "contrast" / "missing.json")["measures"]
        marks = task.annotator.name
        verdicts = [verdict(one, measures, cfg.report, judge, lacking, marks) for one in behaviours]
        _write_verdicts(cfg, verdicts, stage.folder)
        latents = write_latents(cfg, sources, reviews, stage.folder, console)
        write_overview(cfg, sources, verdicts, measures, reviews, stage.folder, latents.num_latents)
        manifest = stage.finish({one.behaviour: one.verdict for one in verdicts})
    _say(verdicts, measures, tracker, console)
    if latents.num_latents:
        tracker.table(LATENTS, latents.top, latents.cells)
    tracker.summary(manifest.counts)
    console.wrote(stage.final, manifest)
    console.say(f"  open {stage.final / 'index.html'}")
    return manifest


def _write_verdicts(cfg: Config, verdicts: list[Verdict], folder: Path) -> None:
    write_artifact(
        folder / "verdict.json",
        {
            "pair": cfg.pair.name,
            "margins": cfg.report.margins,
            "verdicts": [_plain(one) for one in verdicts],
        },
    )


def _plain(one: Verdict) -> dict[str, Any]:
    """A verdict as JSON has it, its qualifiers in words."""
    return {
        "behaviour": one.behaviour,
        "verdict": one.verdict,
        "qualifier": one.qualifier,
        "reason": one.reason,
        "evidence": _finite(one.evidence),
    }


def _finite(evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
    """Figures as JSON has them: an infinite bound is null."""
    return [
        {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(one).items()
        }
        for one in evidence
    ]


def _say(
    verdicts: list[Verdict], measures: list[Measure], tracker: Tracker, console: Console
) -> None:
    rows = [
        {
            "behaviour": one.behaviour,
            "verdict": " ".join(
                filter(None, [one.verdict, one.qualifier and f"({one.qualifier})"])
            ),
            "because": one.reason,
        }
        for one in verdicts
    ]
    tracker.table(VERDICTS, pd.DataFrame(rows))
    console.table(
        "verdicts", ["behaviour", "verdict"], [[r["behaviour"], r["verdict"]] for r in rows]
    )
    for one, row in zip(verdicts, rows, strict=True):
        heuristic = over_heuristic(one, measures)
        console.say(f"  {row['behaviour']}: {row['because']}{heuristic and f'; {heuristic}'}.")
