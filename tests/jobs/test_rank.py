"""The rank job on narrated traces, read by the tiny pair, with a latent planted in a real SAE."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from jobs.ranking import (
    LAYER,
    PLANTED,
    Ranked,
    config_of,
    plant,
    quiet,
    shorten,
    write_narrated,
)
from sealed import seal

from sae_reasoning.behaviours.shortlist import mark_candidates
from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.compose import CONF
from sae_reasoning.config import Config, ConfigError, PairConfig, RankConfig, SaeConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    read_json,
    write_json,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs import rank as rank_job
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.train import train
from sae_reasoning.records import ONSET_PREDICTORS, SPAN_DETECTORS
from sae_reasoning.robustness import outcomes
from sae_reasoning.robustness.outcomes import EXCLUDED, LABELS, NOT_TESTABLE, RANDOM
from sae_reasoning.tasks.search.grammar import BACKTRACKING, INITIALIZING


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_pair: PairConfig) -> Path:
    """Traces, cache and SAEs, made once; tests rank copies."""
    folder = tmp_path_factory.mktemp("rank")
    config = config_of(folder, tiny_pair)
    write_narrated(config)
    cache(config, **quiet())
    train(config, **quiet())
    plant(config)
    return folder


@pytest.fixture
def config(tmp_path: Path, template: Path, tiny_pair: PairConfig) -> Config:
    shutil.copytree(template / "runs", tmp_path / "runs")
    return config_of(tmp_path, tiny_pair)


@pytest.fixture(scope="module")
def ranked(
    tmp_path_factory: pytest.TempPathFactory, template: Path, tiny_pair: PairConfig
) -> Ranked:
    """One finished ranking: its config and what it printed."""
    folder = tmp_path_factory.mktemp("ranked")
    shutil.copytree(template / "runs", folder / "runs")
    config, printed = config_of(folder, tiny_pair), io.StringIO()
    rank(config, tracker=NullTracker(), console=Console(printed, verbose=True))
    return Ranked(config, printed.getvalue())


def test_every_tracker_is_attacked_in_all_readers_and_named(ranked: Ranked) -> None:
    folder = ranked.config.folder / "rank"
    attacks = read_table(folder / "attacks.parquet")
    span_detectors = attacks[attacks.shortlist == SPAN_DETECTORS]
    assert set(span_detectors.reader) == {"base", "rl", RANDOM}
    undecided = attacks.outcome.isin([NOT_TESTABLE, EXCLUDED])
    known = attacks[~undecided]  # The rest may rest on two spans.
    assert ((known.low <= known.auroc) & (known.auroc <= known.high)).all()
    assert undecided[attacks.auroc.isna()].all()
    shortlist = read_json(folder / "shortlist.json")
    for behaviour, entries in shortlist["span_detectors"].items():
        of_random = span_detectors[
            (span_detectors.behaviour == behaviour) & (span_detectors.reader == RANDOM)
        ]
        assert len(of_random.drop_duplicates(["layer", "latent"])) == len(entries)
        for entry in entries:
            own = span_detectors[
                (span_detectors.behaviour == behaviour)
                & (span_detectors.layer == entry["layer"])
                & (span_detectors.latent == entry["latent"])
                & (span_detectors.reader != RANDOM)
            ]
            assert entry["labels"] == dict(zip(own.reader, own.label, strict=True))
            assert set(entry["labels"].values()) <= set(LABELS)
    assert "span detectors refuted, by attack" in ranked.printed


def test_the_planted_latent_is_compared_on_each_span_as_read_and_in_other_words(
    ranked: Ranked,
) -> None:
    """It fires on every token of the behaviour as it stands in the cache, and on no other.

    What words put elsewhere do to it says nothing here: the model that reads them wasn't changed.
    """
    attacks = read_table(ranked.config.folder / "rank" / "attacks.parquet")
    own = attacks[
        (attacks.shortlist == SPAN_DETECTORS)
        & (attacks.behaviour == BACKTRACKING)
        & (attacks.layer == LAYER)
        & (attacks.latent == PLANTED)
        & (attacks.reader == "rl")
    ].set_index("kind")
    assert own.auroc["all"] == 1.0
    assert own.n_pos["paraphrase"] == own.n_pos["all"]  # Each span was read in other words.
    assert own.outcome.isin([NOT_TESTABLE, EXCLUDED]).all()  # Of 18 spans nothing is decided,
    assert own.n_pos["all"] == 18  # as twenty are asked for.
    assert set(own.label) == {"not testable"}


def test_the_planted_latent_outperforms_the_baselines_that_are_not_perfect(ranked: Ranked) -> None:
    folder = ranked.config.folder / "rank"
    compared = read_table(folder / "baseline_comparison.parquet")
    own = compared[
        (compared.shortlist == SPAN_DETECTORS)
        & (compared.behaviour == BACKTRACKING)
        & (compared.layer == LAYER)
        & (compared.latent == PLANTED)
        & (compared.reader == "rl")
    ].set_index("baseline")
    assert set(own.index) == {"ngram", "random_reader", "random_direction", "probe"}
    assert (own.auroc == 1.0).all()
    assert own.outperforms.tolist() == ((own.low > 0) & (own.q < 0.05)).tolist()
    assert (own.difference >= 0).all()
    (entry,) = (
        entry
        for entry in read_json(folder / "shortlist.json")["span_detectors"][BACKTRACKING]
        if (entry["layer"], entry["latent"]) == (LAYER, PLANTED)
    )
    assert entry["outperforms"]["rl"] == own.index[own.outperforms].tolist()
    assert "latents that significantly outperform a baseline" in ranked.printed


def test_onset_predictors_are_attacked_at_onset(ranked: Ranked) -> None:
    attacks = read_table(ranked.config.folder / "rank" / "attacks.parquet")
    shortlist = read_json(ranked.config.folder / "rank" / "shortlist.json")
    own = attacks[(attacks.shortlist == ONSET_PREDICTORS) & (attacks.behaviour == BACKTRACKING)]
    assert set(own.kind) == {"all", "token", "position", "length"}
    listed = {(e["layer"], e["latent"]) for e in shortlist["onset_predictors"][BACKTRACKING]}
    assert set(zip(own.layer, own.latent, strict=True)) == listed
    for entry in shortlist["onset_predictors"][BACKTRACKING]:
        assert set(entry["labels"]) == {"base", "rl"}


def test_onset_predictors_are_held_against_every_baseline_at_opportunities(ranked: Ranked) -> None:
    folder = ranked.config.folder / "rank"
    compared = read_table(folder / "baseline_comparison.parquet")
    own = compared[(compared.shortlist == ONSET_PREDICTORS) & (compared.behaviour == BACKTRACKING)]
    baselines = {"ngram", "random_reader", "random_direction", "probe"}
    assert {frozenset(rows.baseline) for _, rows in own.groupby(["layer", "latent", "reader"])} == {
        frozenset(baselines)
    }
    assert (own.difference - (own.auroc - own.baseline_auroc)).abs().max() < 1e-12
    assert (
        own[own.baseline == "probe"]
        .groupby(["reader", "layer"])
        .baseline_auroc.nunique()
        .eq(1)
        .all()
    )
    # The probe reads what the span detector's probe doesn't: the token before the behaviour.
    probes = compared[(compared.behaviour == BACKTRACKING) & (compared.baseline == "probe")]
    of_list = probes.groupby(["shortlist", "reader", "layer"]).baseline_auroc.first().unstack(0)
    assert (of_list[ONSET_PREDICTORS] != of_list[SPAN_DETECTORS]).all()


def test_injections_say_what_was_put_in_and_whom_it_was_held_against(ranked: Ranked) -> None:
    found = read_table(ranked.config.folder / "rank" / "injections.parquet")
    assert set(found.host_text) == {"prompt", "response"}
    bar = ranked.config.rank.attacks.host_fvu
    assert found.excluded.tolist() == (found.fvu > bar).tolist()
    attacks = read_table(ranked.config.folder / "rank" / "attacks.parquet")
    elsewhere = attacks[
        attacks.kind.isin(
            [
                outcomes.INJECTED,
                outcomes.PLANTED,
                outcomes.PHRASE_INJECTED,
                outcomes.PHRASE_PLANTED,
            ]
        )
    ]
    # So short a training explains little of any text, so nothing is decided by what is put there.
    assert (found.fvu > bar).any()
    assert (elsewhere.outcome == EXCLUDED).sum() >= found.excluded.sum()
    assert set(found.num_tokens) <= {1, 2, 3}
    assert (found.words.str.split().str.len() == found.num_tokens).all()  # A token is a word.
    assert found.injection_auroc.between(0, 1).all()
    assert found.num_others.gt(0).all()
    assert found.p.between(0, 1).all()


def _documented(table: str) -> list[str]:
    """Columns that sae_reasoning/README.md names in its row of one of rank's tables."""
    text = (CONF.parent / "sae_reasoning" / "README.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith(f"| `{table}` |"))
    names: list[str] = []
    whole = ""
    for name in re.findall(r"`(\w+)`", row.split("|")[3]):
        whole = whole if name.startswith("_") else name  # `_low` goes on from the name before.
        names.append(whole + name if name.startswith("_") else name)
    return names


def test_every_column_of_the_scores_is_documented_and_read_by_duckdb_and_polars(
    ranked: Ranked,
) -> None:
    path = ranked.config.folder / "rank" / "scores.parquet"
    known = read_table(path)
    assert sorted(_documented("scores")) == sorted(known)
    mean = known.span_auroc.mean()
    duckdb = pytest.importorskip("duckdb")
    query = f"SELECT count(*), avg(span_auroc) FILTER (NOT isnan(span_auroc)) FROM '{path}'"
    ((count, found),) = duckdb.sql(query).fetchall()
    assert (count, found) == (len(known), pytest.approx(mean))
    polars = pytest.importorskip("polars")
    read = polars.read_parquet(path)
    assert read.columns == list(known)
    assert read["span_auroc"].drop_nulls().drop_nans().mean() == pytest.approx(mean)
    assert read["latent"].to_list() == known.latent.tolist()


def test_the_grid_compares_readers_and_writers(ranked: Ranked) -> None:
    grid = read_table(ranked.config.folder / "rank" / "grid.parquet")
    assert set(grid.measure) == {"span_auroc", "rate_at_opportunities"}
    assert set(grid.between) == {"readers", "writers"}
    assert np.allclose(grid.difference, grid.rl - grid.base, equal_nan=True)
    planted = grid[
        (grid.behaviour == BACKTRACKING)
        & (grid.layer == LAYER)
        & (grid.latent == PLANTED)
        & (grid.measure == "span_auroc")
    ]
    assert (planted.rl == 1.0).all()  # Planted in both readers and both writers' text.
    assert (planted.difference == 0).all()


def test_rank_puts_the_planted_latent_first(ranked: Ranked) -> None:
    config = ranked.config
    shortlist = read_json(config.folder / "rank" / "shortlist.json")
    best = shortlist["span_detectors"][BACKTRACKING][0]
    assert (best["layer"], best["latent"]) == (LAYER, PLANTED)
    assert best["span_auroc"] == 1.0
    assert best["span_auroc_low"] > 0.75
    assert best["q"] < 0.05
    assert (best["reader"], best["writer"]) == ("rl", "rl")
    scores = read_table(config.folder / "rank" / "scores.parquet")
    here = scores[(scores.behaviour == BACKTRACKING) & (scores.reader == "rl")]
    for column in ("span_auroc", "point_biserial", "mutual_information"):
        top = here[(here.split == "report") & (here.writer == "rl")].nlargest(1, column).iloc[0]
        assert (top.layer, top.latent) == (LAYER, PLANTED), column


def test_scores_hold_every_latent_of_the_grid_on_both_splits(ranked: Ranked) -> None:
    config = ranked.config
    scores = read_table(config.folder / "rank" / "scores.parquet")
    grid = scores.groupby(["behaviour", "reader", "writer", "split", "layer"]).latent.nunique()
    assert (grid == 64).all()
    assert len(grid) == 3 * 2 * 2 * 2 * 2
    assert scores.q.notna().any()
    assert scores[scores.q.notna()].split.eq("report").all()
    assert scores[~scores.is_candidate].span_auroc_low.isna().all()
    tested = scores[scores.is_candidate & (scores.split == "report")]
    per_cell = tested.groupby(["behaviour", "reader", "writer", "layer"]).size()
    assert per_cell.min() >= config.rank.candidates


def test_a_behaviour_at_a_fixed_place_is_labelled_positional_and_not_tested(ranked: Ranked) -> None:
    config, printed = ranked.config, ranked.printed
    scores = read_table(config.folder / "rank" / "scores.parquet")
    here = scores[scores.behaviour == INITIALIZING]
    assert (here.status == POSITIONAL).all()
    assert here.q.isna().all()
    assert POSITIONAL in printed


def test_a_behaviour_without_spans_is_named_and_skipped(ranked: Ranked) -> None:
    config, printed = ranked.config, ranked.printed
    assert "warning: example-testing: too few spans by base for both splits" in printed
    assert "skipped: no spans on both splits" in printed
    shortlist = read_json(config.folder / "rank" / "shortlist.json")
    assert shortlist["span_detectors"]["example-testing"] == []
    assert "next: make ablate" in printed


def test_baselines_stand_beside_every_cell(ranked: Ranked) -> None:
    config = ranked.config
    found = read_table(config.folder / "rank" / "baselines.parquet")
    here = found[(found.behaviour == BACKTRACKING) & (found.writer == "rl")].set_index("baseline")
    sparse = {f"sparse_probe_{k}" for k in (1, 2, 5, 20)}
    assert set(here.index) == {"random_reader", "random_direction", "ngram", "probe"} | sparse
    assert here.loc["sparse_probe_1"].span_auroc.max() == 1.0  # The planted latent is picked.
    assert here.loc["ngram", "span_auroc"] > 0.95  # Its wordings give the behaviour away.
    assert here.loc["probe"].span_auroc.min() > 0.7
    assert set(here.loc["random_reader", "reader"]) == {"random"}
    random = found.baseline == "random_reader"
    assert set(found.steps[random]) == {config.train.steps}
    assert set(found.steps[~random]) == {0}
    assert found.num_traces.gt(0).all()
    assert f"random_reader: best layer, {config.train.steps} steps on" in ranked.printed
    several = found.dropna(subset="low")  # Of one problem there is no interval.
    assert (several.low <= several.span_auroc).all()


def test_onset_predictors_push_towards_the_behaviour_and_are_described(ranked: Ranked) -> None:
    config = ranked.config
    shortlist = read_json(config.folder / "rank" / "shortlist.json")
    latents = read_table(config.folder / "rank" / "latents.parquet")
    assert len(latents) == 2 * 2 * 2 * 64
    for entries in shortlist["onset_predictors"].values():
        attributions = [entry["onset_attribution"] for entry in entries]
        assert attributions == sorted(attributions, reverse=True)
        assert min(attributions, default=1) > 0
    assert shortlist["onset_predictors"][BACKTRACKING]
    known = shortlist["dictionaries"]["pooled/layer_0"]
    assert (config.folder / known["folder"] / "cfg.json").exists()


@pytest.mark.slow
def test_span_detectors_are_looked_for_in_dictionaries_of_other_seeds(config: Config) -> None:
    shorten(config)
    config.rank.replicas = 2
    rank(config, **quiet())
    replicas = read_table((folder := config.folder / "rank") / "replicas.parquet")
    readers = set(zip(replicas.seed, replicas.reader, strict=True))
    assert readers == {(1, "base"), (1, "rl"), (2, "base"), (2, "rl")}
    own = read_table(folder / "attacks.parquet").query("kind == 'other SAE seeds'")
    assert len(own) * 2 == len(replicas)
    assert (own.n_pos == 2).all()
    planted = own[(own.layer == LAYER) & (own.latent == PLANTED)]
    assert set(planted.outcome) == {"refuted"}  # No training has seen what was planted.
    assert not list(config.folder.glob("rank.partial-*"))


@pytest.mark.e2e
def test_passes_made_apart_are_gathered_into_the_same_ranking(
    config: Config, ranked: Ranked
) -> None:
    for only in ("rl/1", "base/0", "base/1"):
        config.rank.only = only
        printed = io.StringIO()
        assert rank(config, tracker=NullTracker(), console=Console(printed, verbose=True)) is None
        assert f"{only} is scored" in printed.getvalue()
        assert not (config.folder / "rank").exists()
    (partial,) = config.folder.glob("rank.partial-*")
    made = {path.name.removesuffix("_points.parquet") for path in partial.rglob("*_points.parquet")}
    assert made == {"rl_layer_1", "base_layer_0", "base_layer_1"}
    config.rank.only = ""
    printed = io.StringIO()
    rank(config, tracker=NullTracker(), console=Console(printed, verbose=True))
    assert "rl layer 0:" in printed.getvalue()
    assert "rl layer 1:" not in printed.getvalue()
    for name in ("scores", "attacks", "grid"):
        one, two = (
            read_table(c.folder / "rank" / f"{name}.parquet") for c in (config, ranked.config)
        )
        assert one.equals(two), name


def test_a_pass_that_there_is_not_is_refused(tiny_pair: PairConfig) -> None:
    with pytest.raises(ConfigError, match=r"rank.only=base/7 is no pass; choose of base/1, base/2"):
        Config(pair=tiny_pair, behaviours=["a"], rank=RankConfig(only="base/7"))


def test_a_dictionary_that_fails_the_transfer_gate_is_refused_with_its_figures(
    config: Config,
) -> None:
    config.rank.gate = True
    with pytest.raises(
        ConfigError, match=r"fails the transfer gate \(.* is (over|under) train.gate_"
    ):
        rank(config, **quiet())
    for layer in (0, 1):
        path = config.folder / "train" / "pooled" / f"layer_{layer}" / "quality.json"
        quality = read_json(path)
        for figures in quality["readers"].values():
            figures["failed"] = {}
        write_json(path, quality)
    seal(config.folder / "train")
    config.rank.only = "base/0"
    assert rank(config, **quiet()) is None  # Scored, so it passed.


def test_a_crosscoder_is_refused(config: Config) -> None:
    config.train.sae.architecture = "batchtopk"
    config.train.readers = "crosscoder"
    train(config, **quiet())
    with pytest.raises(ConfigError, match="has one code for both readers"):
        rank(config, **quiet())


def test_a_second_run_does_nothing(ranked: Ranked) -> None:
    printed = io.StringIO()
    again = rank(ranked.config, tracker=NullTracker(), console=Console(printed, verbose=True))
    assert again == Manifest.read(ranked.config.folder / "rank")
    assert printed.getvalue() == f"rank: {ranked.config.folder / 'rank'} is up to date\n"


@pytest.mark.slow
def test_another_config_ranks_again_and_can_announce_by_onset_auroc(
    config: Config, ranked: Ranked
) -> None:
    shorten(config)
    config.rank.onset_predictors_by, config.rank.attribution_onsets = "onset_auroc", 4
    first = Manifest.read(ranked.config.folder / "rank")
    assert first is not None
    assert rank(config, **quiet()).fingerprint != first.fingerprint
    listed = read_json(config.folder / "rank" / "shortlist.json")["onset_predictors"][BACKTRACKING]
    onset_aurocs = [entry["select_onset_auroc"] for entry in listed]
    assert onset_aurocs == sorted(onset_aurocs, reverse=True)


@pytest.mark.e2e
def test_a_killed_ranking_goes_on_at_the_first_missing_part(
    config: Config, ranked: Ranked, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[str, int]] = []
    score = rank_job.score_store

    def killed_at_the_third(cfg, readings, reader, layer, parts, console) -> None:
        part = parts / f"{reader}_layer_{layer}_points.parquet"
        if not part.exists():
            scored.append((reader, layer))
        if len(scored) == 3:
            raise KeyboardInterrupt
        score(cfg, readings, reader, layer, parts, console)

    monkeypatch.setattr(rank_job, "score_store", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        rank(config, **quiet())
    assert not (config.folder / "rank").exists()
    monkeypatch.setattr(rank_job, "score_store", score)
    rank(config, **quiet())
    assert not list(config.folder.glob("rank.partial-*"))
    other = ranked.config
    for name in ("scores", "latents", "baselines"):
        one = read_table(config.folder / "rank" / f"{name}.parquet")
        two = read_table(other.folder / "rank" / f"{name}.parquet")
        assert one.equals(two), name


def test_nothing_of_the_report_split_decides_what_is_a_candidate(ranked: Ranked) -> None:
    traces = read_traces(ranked.config.folder / "traces" / "traces.parquet")
    problems = [{t.problem_id for t in traces if t.split == s} for s in ("select", "report")]
    assert not problems[0] & problems[1]
    scores = read_table(ranked.config.folder / "rank" / "scores.parquet")
    report = np.flatnonzero(scores.split == "report")
    shuffled = np.random.default_rng(0).permutation(report)
    for column in ("span_auroc", "onset_auroc"):
        scores.loc[report, column] = scores[column].to_numpy()[shuffled]
    again = mark_candidates(
        scores, candidates=5, onset_predictors=5, onset_predictors_by="attribution"
    )
    assert (again == scores.is_candidate).all()


@pytest.mark.parametrize("stage", ["traces", "cache", "train"])
def test_a_missing_input_names_its_target(config: Config, stage: str) -> None:
    shutil.rmtree(config.folder / stage)
    with pytest.raises(MissingInput, match=f"run `make {stage}` first"):
        rank(config, **quiet())


def test_a_dictionary_of_another_width_is_refused(config: Config) -> None:
    sae = build_training_sae(SaeConfig(d_sae=16, k=2), d_in=24, seed=0, steps=1)
    finish(sae, 1.0).save(config.folder / "train" / "pooled" / "layer_1")
    seal(config.folder / "train")
    with pytest.raises(BrokenArtifact, match="width 24, its reader's are 32 wide; delete it"):
        rank(config, **quiet())
    assert not (config.folder / "rank").exists()


def test_a_dictionary_that_was_exchanged_is_refused(config: Config) -> None:
    pooled = config.folder / "train" / "pooled"
    shutil.rmtree(pooled / "layer_1")
    shutil.copytree(pooled / "layer_0", pooled / "layer_1")
    seal(config.folder / "train")
    with pytest.raises(BrokenArtifact, match="holds an SAE of layer 0"):
        rank(config, **quiet())


def test_behaviours_that_nobody_makes_are_refused_in_one_line(config: Config) -> None:
    config.behaviours = ["example-testing"]
    with pytest.raises(ConfigError, match=r"behaviours=\['example-testing'\] have no span"):
        rank(config, **quiet())
