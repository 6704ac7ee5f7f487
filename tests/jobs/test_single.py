"""A model that stands alone: read, ranked, matched and edited, with no verdict on it."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sae_reasoning.config import Config, ConfigError, ModelConfig, PairConfig, TrainConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.flow import run
from sae_reasoning.jobs.ablate import ablate
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.match import match
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train

THOUGHTS = (
    "at ash . so birch . wait , no way on . back to ash . so cedar .",
    "at ash . so cedar . at cedar . wait , dead end . back to ash . so birch .",
)


@pytest.fixture
def single(tiny_config: Config, tiny_neox_pair: PairConfig, tmp_path: Path) -> Config:
    """One byte-pair model that reads marked traces of two writers."""
    rows = []
    for number in range(12):
        text = THOUGHTS[number % 2] + " and" * (number % 5)
        start = text.index("wait")
        spans = [[start, text.index(".", start) + 1, "backtracking"]]
        for writer in ("base", "rl"):
            row = {"problem_id": f"q{number}", "writer": writer, "text": text, "label": spans}
            rows.append(row | ({"prompt": "find birch ."} if writer == "base" else {}))
    source = tmp_path / "marked.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tiny_config.pair = PairConfig("one", "none", ModelConfig(path=""), tiny_neox_pair.rl)
    tiny_config.behaviours = ["backtracking"]
    tiny_config.traces.source = str(source)
    tiny_config.traces.cues = {"backtracking": ["wait"]}
    tiny_config.ablate.shortlist = "span_detectors"
    tiny_config.ablate.both = True
    tiny_config.ablate.set_sizes, tiny_config.ablate.doses = [], []
    return tiny_config


def test_one_model_goes_through_to_edits(single: Config) -> None:
    out = io.StringIO()
    for stage in (traces, cache, train, rank, ablate):
        stage(single, tracker=NullTracker(), console=Console(out, verbose=True))
    assert "warning: all traces" not in out.getvalue()
    assert set(read_table(single.folder / "rank" / "scores.parquet").reader) == {"rl"}
    grid = read_table(single.folder / "rank" / "grid.parquet")
    assert set(zip(grid.between, grid.fixed, strict=True)) == {("writers", "rl")}
    effects = read_table(single.folder / "ablate" / "effects.parquet")
    assert set(effects.model) == {"rl"}
    assert {"ablate", "clamp"} <= set(effects.edit)
    made = read_table(single.folder / "ablate" / "generations.parquet")
    # The file told of one writer's rows only what was asked, and it's the same for both.
    assert set(made.prompt) == {"find birch ."}
    assert "labelled by cues" in out.getvalue()
    assert "leave the model's text whole can't be told (" in out.getvalue()
    assert "no answer could be graded" in " ".join(out.getvalue().split())


@pytest.mark.e2e
def test_one_models_latents_are_looked_for_in_another_of_its_own(
    single: Config, tiny_neox_pair: PairConfig
) -> None:
    console = Console(io.StringIO())
    other = replace(single, pair=replace(single.pair, name="other"))
    other.pair.rl = tiny_neox_pair.base
    for config in (single, other):
        for stage in (traces, cache, train, rank):
            stage(config, tracker=NullTracker(), console=console)
    single.match.other = f"{other.experiment}/other"
    single.match.model = other.pair.rl
    single.match.min_fires, single.match.null_draws, single.match.bootstrap = 2, 20, 10
    match(single, tracker=NullTracker(), console=console)
    assert len(read_table(single.folder / "match" / "matches.parquet"))


@pytest.mark.parametrize("stage", ["contrast", "hybrid", "elicit", "report", "course"])
def test_what_compares_two_models_names_what_is_missing(single: Config, stage: str) -> None:
    assert f"{stage} compares two models, but pair=one has one" in run([stage], single)


def test_what_needs_two_readers_is_refused(single: Config) -> None:
    for readers in ("base", "crosscoder"):
        with pytest.raises(ConfigError, match=f"train.readers={readers} needs two models"):
            replace(single, train=TrainConfig(readers=readers))
    with pytest.raises(ConfigError, match=r"pair\.rl\.path= is empty"):
        PairConfig("none", "none", ModelConfig(path="x/y"), ModelConfig(path=""))
