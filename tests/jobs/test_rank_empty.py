"""The rank job where there is nothing to put on a list."""

import io
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
from jobs.ranking import config_of, quiet, shorten, write_narrated
from sealed import seal

from sae_reasoning.behaviours.baselines import BaselineScore
from sae_reasoning.behaviours.grid import Gap
from sae_reasoning.behaviours.scores import SCORES
from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.config import Config, ConfigError, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.train import train
from sae_reasoning.records import Shortlist, Trace
from sae_reasoning.robustness import summary
from sae_reasoning.robustness.baseline_comparison import BaselineComparison
from sae_reasoning.robustness.outcomes import Attack, add_labels
from sae_reasoning.robustness.summary import summarise_ranking
from sae_reasoning.steering.latent_choice import choose


@pytest.fixture
def config(tmp_path: Path, tiny_pair: PairConfig) -> Config:
    """Narrated traces, cache and SAEs; short lists."""
    config = config_of(tmp_path, tiny_pair)
    shorten(config)
    config.layers = [0]
    write_narrated(config)
    cache(config, **quiet())
    train(config, **quiet())
    return config


def _rewrite(config: Config, change: Callable[[Trace], Trace]) -> None:
    """Other behaviours or opportunities in the same texts, so that cache and dictionaries hold."""
    path = config.folder / "traces" / "traces.parquet"
    write_traces(path, list(map(change, read_traces(path))))
    seal(config.folder / "traces")


def test_spans_on_one_split_alone_are_refused_in_one_line(config: Config) -> None:
    for split in ("select", "report"):
        shutil.copytree(config.folder / "traces", config.folder / "kept")
        _rewrite(config, lambda t, split=split: t if t.split == split else replace(t, spans=()))
        with pytest.raises(ConfigError, match=r"nothing to rank; raise traces\.num_problems"):
            rank(config, **quiet())
        shutil.rmtree(config.folder / "traces")
        (config.folder / "kept").rename(config.folder / "traces")


@pytest.mark.slow
def test_a_list_without_latents_is_told_and_what_cannot_be_shown_is_not_finished(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewrite(config, lambda trace: replace(trace, opportunities=()))

    def broken(*_: object) -> None:
        raise KeyError("behaviour")

    with monkeypatch.context() as patch:
        patch.setattr(summary, "words_suffice", broken)
        with pytest.raises(KeyError):
            rank(config, **quiet())
    assert not (config.folder / "rank").exists()
    printed = io.StringIO()
    rank(config, tracker=NullTracker(), console=Console(printed, verbose=True))
    said = " ".join(printed.getvalue().split())
    assert said.count("No onset predictor is listed for any behaviour, so none is attacked") == 1
    assert "span detectors refuted, by attack" in said and "onset predictors refuted" not in said
    assert "onset predictors" not in said.partition("The attacks leave")[2]
    shortlist = read_shortlist(config.folder / "rank")
    assert not any(shortlist.onset_predictors.values())
    with pytest.raises(
        ConfigError,
        match=r"ablate\.shortlist=onset_predictors is empty for every behaviour; raise "
        r"traces\.num_problems and run `make rank` again, or set ablate\.shortlist=span_detectors",
    ):
        choose(config, shortlist)
    config.traces.source = "mine.jsonl"
    with pytest.raises(ConfigError, match=r"add traces to traces\.source=mine\.jsonl and run"):
        choose(config, shortlist)
    fixed = {
        behaviour: [replace(entry, status=POSITIONAL) for entry in entries]
        for behaviour, entries in shortlist.span_detectors.items()
    }
    shortlist = replace(shortlist, span_detectors=fixed)
    config.ablate.shortlist = "span_detectors"
    with pytest.raises(ConfigError, match=r"one place in every trace .*set ablate\.behaviours=\["):
        choose(config, shortlist)


def test_what_is_shown_of_empty_tables_is_a_line_for_each_list(tiny_pair: PairConfig) -> None:
    config = Config(pair=tiny_pair, behaviours=["backtracking"])

    def none(kind: type) -> pd.DataFrame:
        return pd.DataFrame(columns=[field.name for field in fields(kind)])

    found = summarise_ranking(
        config,
        Shortlist({"backtracking": []}, {"backtracking": []}),
        {
            "scores": pd.DataFrame(columns=SCORES).astype({"is_candidate": bool}),
            "baselines": none(BaselineScore),
            "attacks": add_labels(none(Attack)),
            "grid": none(Gap),
            "baseline_comparison": none(BaselineComparison),
        },
    )
    assert found.top.empty and found.heads == []
    (name,) = found.tables
    assert found.tables[name][1].latent.tolist() == ["skipped: no spans on both splits"]
    assert [line.partition(" is listed")[0] for line in found.said] == [
        "No span detector",
        "No onset predictor",
    ]
