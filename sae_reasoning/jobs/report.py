"""The verdict on each move, from the contrast."""

from dataclasses import asdict

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.contrast.measures import MODELS, Measure
from sae_reasoning.edges.artifacts import Manifest, Stage, require_stage, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.report.verdict import verdict

SCHEMA_VERSION = 1


def report(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `report/verdict.json`."""
    models = {model: describe(getattr(cfg.pair, model)).fingerprint for model in MODELS}
    made = require_stage(cfg.folder, "contrast", cfg.settings("contrast"), models)
    inputs = {"contrast": made.fingerprint}
    with Stage(cfg.folder / "report", cfg.settings("report"), inputs) as stage:
        if stage.is_current:
            console.current("report", stage.final)
            assert stage.manifest
            return stage.manifest
        table = read_table(cfg.folder / "contrast" / "contrast.parquet")
        measures = [Measure(**row) for row in table.to_dict("records")]
        behaviours = cfg.contrast.behaviours or cfg.behaviours
        verdicts = [verdict(behaviour, measures, cfg.report) for behaviour in behaviours]
        write_json(
            stage.folder / "verdict.json",
            {
                "schema_version": SCHEMA_VERSION,
                "pair": cfg.pair.name,
                "margins": asdict(cfg.report),
                "verdicts": verdicts,
            },
        )
        manifest = stage.finish({one.behaviour: one.verdict for one in verdicts})
    rows = [
        {
            "move": one.behaviour,
            "verdict": " ".join(
                filter(None, [one.verdict, one.qualifier and f"({one.qualifier})"])
            ),
            "because": one.reason,
        }
        for one in verdicts
    ]
    tracker.table("verdicts", pd.DataFrame(rows))
    tracker.summary(manifest.counts)
    console.table("verdicts", ["move", "verdict"], [[r["move"], r["verdict"]] for r in rows])
    for row in rows:
        console.say(f"  {row['move']}: {row['because']}.")
    console.wrote(stage.final, manifest)
    return manifest
