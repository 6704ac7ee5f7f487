"""Contrast and report on a random pair with byte-level tokens, a chat template and sums."""

import io
import json
from pathlib import Path
from string import ascii_lowercase

from jobs.sums import pose_sums

from sae_reasoning.compose import compose
from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.contrast import contrast
from sae_reasoning.jobs.report import report
from sae_reasoning.jobs.traces import traces
from sae_reasoning.records import MODELS


def test_natural_text_is_contrasted_as_far_as_its_task_goes(
    tiny_config: Config, tmp_path: Path
) -> None:
    cfg = tiny_config
    pose_sums(cfg, tmp_path)
    cfg.behaviours = ["backtracking", "deduction"]
    cfg.traces.cues = {"backtracking": ["wait"], "deduction": list(ascii_lowercase)}
    own = cfg.contrast
    own.behaviours = ["backtracking"]
    own.select_problems, own.report_problems, own.samples = 2, 3, 1
    own.pass_problems, own.pass_samples, own.max_new_tokens = 2, 2, 16
    own.corrupted_traces, own.behaviour_tokens, own.bootstrap = 3, 8, 20
    out = io.StringIO()
    console = Console(out, verbose=True)
    for stage in (traces, contrast, report):
        stage(cfg, tracker=NullTracker(), console=console)
    table = read_table(cfg.folder / "contrast" / "contrast.parquet")
    assert {"annotated/per_trace", "annotated/per_opportunity", "pass@k"} <= set(table.measure)
    assert {"onset_probability/per_trace", "onset_probability/per_opportunity"} <= set(
        table.measure
    )
    assert {"kl/share", "kl/likeliest_differs"} <= set(table.measure)
    missing = json.loads((cfg.folder / "contrast" / "missing.json").read_text())["measures"]
    assert missing["execution accuracy"] == ["openings", "judge", "null"]
    assert missing["mined openings"] == ["openings"]  # Nobody said the cue word.
    assert "not measured: steering vectors; task=text has no openings" in out.getvalue()
    (found,) = json.loads((cfg.folder / "report" / "verdict.json").read_text())["verdicts"]
    assert found["verdict"] == "inconclusive"
    assert "opportunities for backtracking on 3 problems are too few" in found["reason"]
    page = (cfg.folder / "report" / "index.html").read_text()
    assert "Where the models differ" in page and "When: mined openings" not in page


def test_openings_are_mined_and_onsets_sampled_where_behaviours_are_told_by_words(
    talking_pair: PairConfig, tmp_path: Path
) -> None:
    options = [
        *("experiment=tiny", "task=text", "pair=local", "pair.name=talking", "tracker=none"),
        *(f"pair.base.path={talking_pair.base.path}", f"pair.rl.path={talking_pair.rl.path}"),
        *("device=cpu", "threads=1", f"runs={tmp_path}", "behaviours=[deduction,backtracking]"),
        *("contrast.behaviours=[]", "traces.num_problems=16", "contrast.select_problems=8"),
        *("contrast.samples=3", "contrast.onset_places=40"),
    ]
    cfg = compose(options)
    for stage in (traces, contrast, report):
        stage(cfg, tracker=NullTracker(), console=Console(io.StringIO()))
    openings = read_table(cfg.folder / "contrast" / "openings.parquet")
    assert "deduction" in set(openings.behaviour)
    assert (openings.text.str.split().str.len() >= 2).all()
    assert openings.precision.dropna().between(0, 1).all()
    table = read_table(cfg.folder / "contrast" / "contrast.parquet").set_index(
        ["behaviour", "measure", "model", "level"]
    )
    for model in MODELS:
        sampled = table.loc["deduction", "onset_probability/per_opportunity", model, 0.95]
        mined = table.loc["deduction", "opening_probability/per_opportunity", model, 0.95]
        assert 0 < mined.value.item() < 1 and 0 < sampled.value.item() < 1
        assert sampled["items"].item() == mined["items"].item() > 20
    assert "deduction" in table.loc[:, "kl/enrichment", :, :].reset_index().behaviour.tolist()
    page = (cfg.folder / "report" / "index.html").read_text()
    assert "When: mined openings" in page and "What the mined openings stand for" in page
