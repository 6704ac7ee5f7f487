"""Contrast and report on a random pair with byte-level tokens, a chat template and sums."""

import io
import json
from pathlib import Path

from jobs.sums import pose_sums

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.contrast import contrast
from sae_reasoning.jobs.report import report
from sae_reasoning.jobs.traces import traces


def test_natural_text_is_contrasted_as_far_as_its_task_goes(
    tiny_config: Config, tmp_path: Path
) -> None:
    cfg = tiny_config
    pose_sums(cfg, tmp_path)
    cfg.behaviours = ["backtracking"]
    cfg.traces.cues = {"backtracking": ["wait"]}
    own = cfg.contrast
    own.select_problems, own.report_problems, own.samples = 2, 3, 1
    own.pass_problems, own.pass_samples, own.max_new_tokens = 2, 2, 16
    own.corrupted_traces, own.behaviour_tokens, own.bootstrap = 3, 8, 20
    out = io.StringIO()
    console = Console(out, verbose=True)
    for stage in (traces, contrast, report):
        stage(cfg, tracker=NullTracker(), console=console)
    table = read_table(cfg.folder / "contrast" / "contrast.parquet")
    assert {"annotated/per_trace", "annotated/per_opportunity", "pass@k"} <= set(table.measure)
    missing = json.loads((cfg.folder / "contrast" / "missing.json").read_text())["measures"]
    assert missing["execution accuracy"] == ["openings", "judge", "null"]
    assert "not measured: steering vectors; task=text has no openings" in out.getvalue()
    (found,) = json.loads((cfg.folder / "report" / "verdict.json").read_text())["verdicts"]
    assert found["verdict"] == "inconclusive"
    assert "opportunities for backtracking on 3 problems are too few" in found["reason"]
