"""Traces with their behaviours as span JSONL, for annotation tools; `traces.source` reads it."""

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import Manifest, Stage, publish
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.traces.exported import span_lines


def export(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `export/spans.jsonl`, a line a trace."""
    inputs = inputs_of("export", cfg)
    with Stage(cfg.folder / "export", cfg.settings("export"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        splits = ("select", "report") if cfg.export.split == "all" else (cfg.export.split,)
        every = read_traces(cfg.folder / "traces" / "traces.parquet")
        chosen = [trace for trace in every if trace.split in splits]
        console.plan(
            "export",
            {
                "traces": f"{len(chosen):,} of {len(every):,} (export.split={cfg.export.split})",
                "offsets": f"count {cfg.export.offsets}",
            },
        )
        with publish(stage.folder / "spans.jsonl") as partial:
            lines = span_lines(chosen, cfg.export.offsets)
            partial.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        manifest = stage.finish(
            {"traces": len(chosen), "spans": sum(len(trace.spans) for trace in chosen)}
        )
    tracker.summary({"export": manifest.counts})
    console.wrote(stage.final, manifest)
    return manifest
