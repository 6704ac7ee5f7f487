"""The ablate stage, on a babbling pair that has read narrated traces, and a shortlist by hand."""

import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jobs.edited import SHORTLIST, make_inputs, quiet, run, write_rank
from sealed import seal
from shortlists import onset_predictor

from sae_reasoning.config import VERSIONS, Config, ConfigError, PairConfig, SaeConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    Stage,
    read_json,
    write_json,
)
from sae_reasoning.edges.crosscoder_checkpoint import crosscoder_of
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import encode_prompt, load
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.edges.shortlist import read_shortlist, write_shortlist
from sae_reasoning.edges.tables import read_table, read_traces, write_table
from sae_reasoning.records import Shortlist
from sae_reasoning.rollouts import parts
from sae_reasoning.steering.conditions import LatentId
from sae_reasoning.steering.latent_choice import too_short
from sae_reasoning.steering.noise import Noise, keyed_sampler
from sae_reasoning.tasks.problems import noise_key


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results of the earlier stages are kept, made by the first test."""
    return tmp_path_factory.mktemp("ablate") / "runs"


@pytest.fixture
def cfg(tiny_config: Config, talking_pair: PairConfig, template: Path) -> Config:
    """Models that babble, with behaviours in it; beside the main edits one latent and one dose."""
    tiny_config.pair = talking_pair
    tiny_config.behaviours.remove("initializing")
    own = tiny_config.ablate
    own.batch_size, own.max_new_tokens, own.clamp_multiple = 16, 8, 1.0
    own.clamp_latents, own.set_sizes, own.doses = 2, [1], [1.0, 2.0]
    own.everywhere = own.other_reader = False
    own.recovery = True
    if not template.exists():
        here, tiny_config.runs = tiny_config.runs, str(template)
        make_inputs(tiny_config)
        tiny_config.runs = here
    shutil.copytree(template, tiny_config.runs)
    return tiny_config


def generations(cfg: Config, place: str = "ablate") -> pd.DataFrame:
    return read_table(cfg.folder / place / "generations.parquet")


def splits(cfg: Config) -> dict[str, str]:
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    return {trace.problem_id: trace.split for trace in traces}


def test_ablate_generates_every_condition_on_report_problems_only(cfg):
    console = quiet()
    manifest = run(cfg, console)
    folder, rows = cfg.folder / "ablate", generations(cfg)
    assert {splits(cfg)[problem] for problem in rows.problem_id} == {"report"}
    beside = {"edit", "matched_latent", "random_direction", "random_positions", "other_behaviour"}
    beside |= {"mean_difference"}
    paths = {"latents_and_error", "whole_residual", "random_span"}
    for model, edit, kinds in (("rl", "ablate", beside | paths), ("base", "clamp", beside)):
        main = rows[(rows.model == model) & (rows.set_size == 2) & rows.dose.isin([0.0, 1.0])]
        assert set(main.edit) == {edit}
        assert set(main.condition) == kinds
        assert set(main.behaviour) == {"backtracking"}  # The other has but one onset predictor.
    # Without an edit; main edits with what stands beside them; a set of one with two; a dose.
    assert manifest.counts == {
        "problems": 3,
        "behaviours": 2,
        "conditions": (1 + 9 + 3 + 9) + (1 + 6 + 3 + 2 + 6 + 2),
        "generations": 3 * 22 + 2 * 3 * 20,
    }
    cells = rows.groupby(["model", *"behaviour edit set_size dose condition draw".split()]).size()
    assert set(cells["rl"]) == {3}
    assert set(cells["base"]) == {6}
    assert rows.num_tokens.le(8).all()
    assert (rows.num_tokens[rows.truncated] == 8).all()
    assert rows.norm_sum[rows.condition == "none"].eq(0).all()
    assert rows.text[rows.model == "base"].str.startswith("<think>").all()
    tables = ("effects", "generations", "sets", "doses", "off_target", "returning")
    assert {path.name for path in folder.iterdir()} == {
        *(f"{table}.parquet" for table in tables),
        "manifest.json",
    }
    found = read_table(folder / "effects.parquet")
    assert set(found.layer) == {"0+1", "1", "0"}
    assert set(found.split) == {"report"}
    said = console.stream.getvalue()
    assert "matched" in said
    # Onset predictors are edited: the best of them is told apart from the best detector.
    said = " ".join(said.split())
    assert "backtracking: best span detector 0/3 (AUROC 0.900 [0.800, 0.950], lexical)" in said
    assert said.count("edited onset predictors from ") == 2


def test_options_that_ask_for_more_latents_than_there_are_say_how_many_there_are(cfg):
    cfg.ablate.num_latents, cfg.ablate.set_sizes = 5, [1]
    console = quiet()
    run(cfg, console)
    (line,) = [x for x in console.stream.getvalue().splitlines() if "more than there are" in x]
    assert line == (
        "  warning: ablate.num_latents=5, ablate.clamp_latents=2: more than there are "
        "(2 for backtracking, 1 for verification), so sets end there; rank.onset_predictors=3 "
        "lists all that there are, so lower the set"
    )
    chosen = {"backtracking": [LatentId(0, 3), LatentId(1, 5)]}
    cfg.rank.onset_predictors = 2
    assert too_short(cfg, chosen).endswith("raise rank.onset_predictors=2 to have more")
    cfg.ablate.num_latents = 2
    assert too_short(cfg, chosen) == ""


def test_the_select_split_has_its_own_folder_and_leaves_the_reported_result(cfg):
    cfg.ablate.behaviours = ["verification"]
    reported = run(cfg)
    cfg.ablate.split = "select"
    console = quiet()
    run(cfg, console)
    assert "on the select split" in console.stream.getvalue()
    assert {splits(cfg)[p] for p in generations(cfg, "ablate_select").problem_id} == {"select"}
    found = read_table(cfg.folder / "ablate_select" / "effects.parquet")
    assert set(found.split) == {"select"}
    assert Manifest.read(cfg.folder / "ablate") == reported


def test_only_behaviours_and_layers_of_the_config_are_edited(cfg):
    made = Manifest.read(cfg.folder / "rank").inputs
    write_rank(cfg, SHORTLIST | {"backtracking": [(7, 2), (0, 3)]}, made)
    cfg.behaviours = ["backtracking"]
    assert run(cfg).counts["behaviours"] == 1
    rows = generations(cfg)
    assert set(rows.behaviour) == {"", "backtracking"}
    assert set(rows.layer[rows.condition == "edit"]) == {"0"}


def test_the_other_readers_latents_and_all_tokens_are_edited_too(cfg):
    cfg.ablate.everywhere = cfg.ablate.other_reader = True
    cfg.ablate.behaviours = ["backtracking"]
    run(cfg)
    rows = generations(cfg)
    edits = rows[(rows.condition == "edit") & (rows.set_size == 2)]
    assert set(edits.latents[edits.found_by == "rl"]) == {"0:3 1:5"}
    assert set(edits.latents[edits.found_by == "base"]) == {"0:4 1:6"}
    assert set(edits["where"]) == {"all", "opportunities"}


def test_edits_at_opportunities_act_nowhere_else(cfg):
    cfg.ablate.doses, cfg.ablate.max_new_tokens = [], 48
    run(cfg)
    rows = generations(cfg)
    local = rows[(rows["where"] == "opportunities") & (rows.condition == "edit")]
    # The token that ends a text is predicted from an edited position too; both layers count.
    offered = [
        sum(o["behaviour"] == row.behaviour for o in row.opportunities) * (row.layer.count("+") + 1)
        for row in local.itertuples()
    ]
    assert (local.num_edited.to_numpy() <= offered).all()
    assert local.num_edited.sum() > 0
    assert (local.num_edited_positions == local.edited_positions.map(len)).all()
    assert (local.num_edited_positions <= local.num_edited).all()
    everywhere = [place for row in rows.edited_positions for place in row]
    assert 0 <= min(everywhere) < max(everywhere) < 48
    assert not rows.num_edited_positions[rows.condition == "none"].any()


def test_clamps_change_text_and_their_controls_are_as_large(cfg):
    cfg.ablate.clamp_multiple, cfg.ablate.doses, cfg.ablate.where = 20.0, [], "all"
    cfg.ablate.behaviours = ["backtracking"]
    run(cfg)
    rows = generations(cfg)
    base = rows[rows.model == "base"].set_index(["problem_id", "sample"])
    none = base.text[base.condition == "none"]
    clamped = base[(base.edit == "clamp") & (base.set_size == 2)]
    edited = clamped.text[clamped.condition == "edit"]
    assert (edited != none[edited.index]).any()
    sizes = clamped.norm_sum / clamped.num_edited
    assert sizes.min() > 20
    means = sizes.groupby(clamped.condition).mean()
    assert means.max() / means.min() == pytest.approx(1, abs=0.2)


def rewrite_shortlist(cfg: Config, **lists: Any) -> None:
    folder = cfg.folder / "rank"
    write_shortlist(folder, replace(read_shortlist(folder), **lists))


def match_from(cfg: Config, other: str) -> None:
    """Another run's shortlist, and its latents' matched latents here."""
    folder = Path(cfg.runs) / other
    onset_predictors = [onset_predictor(4, latent) for latent in (8, 9, 7, 6)]
    with Stage(folder / "rank", {}, {}) as stage:
        write_shortlist(stage.folder, Shortlist({}, {"backtracking": onset_predictors}))
        stage.finish({})
    # The best of either layer: 0:11 for two of them, and 1:12; nothing for 4:6.
    alike = {(8, 0, 11): 0.9, (8, 1, 30): 0.2, (9, 0, 11): 0.7, (7, 1, 12): 0.5}
    alike |= {(latent, latent % 2, latent): 0.4 for latent in range(40, 60)}
    rows = [
        {"layer": 4, "latent": l, "other_layer": layer, "other_latent": o, "value": v}
        for (l, layer, o), v in alike.items()
    ]
    table = pd.DataFrame(rows).assign(by="words", same_word=0.1, behaviours="", other_behaviours="")
    here = f"{cfg.experiment}/{cfg.pair.name}"
    with Stage(
        folder / "match", {"match": {"other": here}, "version": VERSIONS["match"]}, {}
    ) as stage:
        write_table(stage.folder / "matches.parquet", table)
        stage.finish({})


def test_matches_of_another_runs_latents_are_edited_with_controls_and_the_own(cfg):
    cfg.ablate.matches_of, cfg.ablate.permutations = "default/other", 3
    cfg.ablate.behaviours = ["backtracking"]
    with pytest.raises(MissingInput, match=r"make match ARGS=match.other=default/"):
        run(cfg)
    match_from(cfg, "default/other")
    console = quiet()
    run(cfg, console)
    place = "ablate_from_default_other"
    rows = generations(cfg, place)
    rows = rows[rows.condition != "none"]
    assert set(rows.found_by) == {"default/other"}
    assert set(rows.condition) == {
        *("edit", "matched_latent", "random_direction", "permuted_match", "own_latents")
    }
    assert set(rows.set_size) == {1, 2}
    for model, own in rows[rows.set_size == 2].groupby("model"):
        named = own.groupby("condition").latents.unique()
        assert named["edit"].tolist() == ["0:11 1:12"]
        assert named["own_latents"].tolist() == ["0:3 1:5"], model
        drawn = " ".join(named["permuted_match"]).split()
        assert all(re.match("[01]:[45]", name) for name in drawn)
        assert own.draw[own.condition == "permuted_match"].nunique() == 3
    table = read_table(cfg.folder / place / "matched_latents.parquet")
    assert table.other_latent.tolist() == [11, 11, 12]
    found = read_table(cfg.folder / place / "effects.parquet")
    edits = found[(found.condition == "edit") & (found.outcome == "accuracy")]
    assert edits[["difference_from_own", "difference_from_permuted"]].notna().all(axis=None)
    assert "own latents" in console.stream.getvalue()
    assert "attacks say" not in console.stream.getvalue()  # Of the own best, which isn't edited.
    assert not (cfg.folder / "ablate").exists()


def make_crosscoders(cfg: Config) -> None:
    """One untrained crosscoder a layer in the place of the SAEs; `rank` has nothing on them."""
    shutil.rmtree(cfg.folder / "rank")
    cfg.train.readers, cfg.ablate.shortlist = "crosscoder", "separators"
    made = dict(Manifest.read(cfg.folder / "train").inputs)
    scales = {"readers": ["base", "rl"], "reader_scales": [1.0, 1.0]}
    with Stage(cfg.folder / "train", cfg.settings("train"), made) as stage:
        for layer in cfg.layers:
            joint = build_training_sae(
                SaeConfig(d_sae=64, k=8), d_in=64, seed=layer, steps=1, metadata=scales
            )
            crosscoder_of(finish(joint, 1.0), ("base", "rl"), (1.0, 1.0)).save(
                stage.folder / "crosscoder" / f"layer_{layer}"
            )
        stage.finish({})


def test_a_crosscoders_latents_are_edited_through_the_edited_models_half(cfg, monkeypatch):
    make_crosscoders(cfg)
    monkeypatch.setattr("sae_reasoning.steering.places.FEW", 1)
    cfg.ablate.behaviours, cfg.ablate.where = ["deduction"], "all"
    run(cfg)
    rows = generations(cfg)
    assert {"edit", "matched_latent", "random_direction", "mean_difference"} <= set(rows.condition)
    assert set(rows.found_by) == {"", "rl"}
    edited = rows[rows.condition == "edit"]
    assert edited.num_edited.sum() > 0
    # The same latents in both models: there is one list.
    named = edited[edited.set_size == 2].groupby("model").latents.unique()
    assert named["base"].tolist() == named["rl"].tolist()


def test_crosscoders_need_a_list_that_their_code_can_make(cfg):
    make_crosscoders(cfg)
    cfg.ablate.shortlist = "onset_predictors"
    with pytest.raises(ConfigError, match=r"set ablate.shortlist=separators"):
        run(cfg)
    cfg.ablate.shortlist, cfg.ablate.behaviours = "separators", ["initializing"]
    with pytest.raises(ConfigError, match=r"initializing has fewer than 20 opportunities"):
        run(cfg)


def test_a_second_run_does_nothing_and_another_config_reruns(cfg):
    cfg.ablate.behaviours = ["verification"]
    first = run(cfg)
    console = quiet()
    assert run(cfg, console) == first
    assert "up to date" in console.stream.getvalue()
    cfg.ablate.behaviours = ["backtracking"]
    again = run(cfg)
    assert again.counts["conditions"] == (1 + 8 + 3) + (1 + 5 + 3 + 2)  # No other behaviour.
    assert set(generations(cfg).behaviour) == {"", "backtracking"}


def run_and_die(cfg: Config, num_parts: int) -> None:
    """Run the stage in a child that kills itself once it has published that many parts."""

    def die_at_part(path: Path, columns: object) -> None:
        write_table(path, columns)
        if len(list(path.parent.glob("*.parquet"))) == num_parts:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        parts.write_table = die_at_part
        run(cfg)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.e2e
@pytest.mark.parametrize("num_parts", [1, 9])
def test_killed_ablate_resumes_to_the_same_tables(cfg, num_parts):
    cfg.ablate.behaviours, cfg.ablate.batch_size = ["backtracking"], 2
    run_and_die(cfg, num_parts)
    assert not (cfg.folder / "ablate").exists()
    (partial,) = cfg.folder.glob("ablate.partial-*")
    made_before = {part.name for part in (partial / "parts").iterdir()}
    assert len(made_before) == num_parts
    published = []

    def note(path: Path, columns: object) -> None:
        published.append(path.name)
        write_table(path, columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "write_table", note)
        run(cfg)
    assert not set(published) & made_before
    names = ("generations", "effects", "sets", "doses", "off_target", "returning")
    resumed = {name: read_table(cfg.folder / "ablate" / f"{name}.parquet") for name in names}
    shutil.rmtree(cfg.folder / "ablate")
    run(cfg)
    for name, table in resumed.items():
        unbroken = read_table(cfg.folder / "ablate" / f"{name}.parquet")
        pd.testing.assert_frame_equal(table, unbroken)


def test_rollouts_without_an_edit_are_what_the_model_says_alone(cfg):
    cfg.ablate.behaviours = ["verification"]
    run(cfg)
    rows = generations(cfg)
    none = rows[(rows.model == "rl") & (rows.condition == "none")]
    lm = load(cfg.pair.rl, "cpu")
    for row in none.itertuples():
        noise = Noise("ablate", cfg.ablate.seed)
        keys = noise.keys([(noise_key(row.problem_id), row.sample)])
        (rollout,) = generate(
            lm,
            [encode_prompt(lm.tokenizer, row.prompt)],
            sampler=keyed_sampler(keys, 1.0),
            max_new_tokens=8,
            batch_size=1,
        )
        assert lm.decode(list(rollout.token_ids)) == row.text


def test_a_shortlist_from_another_dictionary_is_refused(cfg):
    path = cfg.folder / "rank" / "shortlist.json"
    shortlist = read_json(path)
    shortlist["dictionaries"]["pooled/layer_1"]["fingerprint"] = "0" * 16
    write_json(path, shortlist)
    seal(cfg.folder / "rank")
    with pytest.raises(BrokenArtifact, match=r"another dictionary.*make rank"):
        run(cfg)
    assert not (cfg.folder / "ablate").exists()


def test_a_behaviour_that_is_not_shortlisted_is_refused(cfg):
    cfg.ablate.behaviours = ["deduction"]
    with pytest.raises(ConfigError, match=r"ablate.behaviours: deduction .* choose from"):
        run(cfg)


def test_an_empty_shortlist_is_refused(cfg):
    cfg.ablate.shortlist = "span_detectors"
    rewrite_shortlist(cfg, span_detectors={"deduction": []})
    seal(cfg.folder / "rank")
    with pytest.raises(ConfigError, match=r"ablate.shortlist=span_detectors is empty"):
        run(cfg)


def test_too_many_latents_for_controls_is_refused(cfg):
    table = cfg.folder / "rank" / "latents.parquet"
    latents = read_table(table)
    latents.loc[latents.latent > 8, ["firing_rate", "max_active"]] = 0.0
    write_table(table, latents)
    chosen = [onset_predictor(0, latent) for latent in range(6)]
    rewrite_shortlist(cfg, onset_predictors={"backtracking": chosen})
    seal(cfg.folder / "rank")
    cfg.ablate.num_latents = 6
    with pytest.raises(ConfigError, match=r"ablate.num_latents=6, .* layer 0 .* lower them"):
        run(cfg)


@pytest.mark.parametrize("stage", ["traces", "cache", "train", "rank"])
def test_a_missing_stage_is_named(cfg, stage):
    shutil.rmtree(cfg.folder / stage)
    with pytest.raises(MissingInput, match=f"run `make {stage}` first"):
        run(cfg)


@pytest.mark.parametrize("changed", ["traces", "cache", "train", "base", "rl"])
def test_a_shortlist_made_from_other_inputs_is_refused(cfg, changed):
    made = Manifest.read(cfg.folder / "rank").inputs
    write_rank(cfg, SHORTLIST, made | {changed: "0" * 16})
    with pytest.raises(MissingInput, match=f"another {changed} than there is now; run `make rank"):
        run(cfg)


def test_only_latents_that_reviewers_call_real_are_edited_and_the_other_result_stays(cfg, tmp_path):
    cfg.ablate.behaviours, cfg.ablate.num_latents = ["backtracking"], 1
    cfg.ablate.clamp_latents, cfg.ablate.other_reader = 1, True
    rank = Manifest.read(cfg.folder / "rank").fingerprint
    rows = [
        {"layer": layer, "latent": latent, "behaviour": "backtracking", "label": call}
        for layer, latent, call in ((0, 3, "lexical"), (1, 5, "real"))
    ]
    export = {"schema_version": 2, "reviewer": "a", "rank": rank, "reviews": rows}
    write_json(tmp_path / "a.json", export)
    cfg.ablate.reviews = [str(tmp_path / "a.json")]
    console = quiet()
    run(cfg, console)
    assert "attacks say" not in console.stream.getvalue()  # The best may be none of the edited.
    edited = generations(cfg, "ablate_reviewed")
    assert set(edited.latents[edited.condition == "edit"]) == {"1:5"}
    assert not (cfg.folder / "ablate").exists()
    write_json(tmp_path / "a.json", export | {"rank": "another"})
    with pytest.raises(ConfigError, match="reviews other shortlists"):
        run(cfg)
    write_json(tmp_path / "a.json", export | {"reviews": rows[:1]})
    with pytest.raises(ConfigError, match="call real"):
        run(cfg)


def test_a_behaviour_that_is_only_positional_is_not_edited(cfg):
    made = read_shortlist(cfg.folder / "rank").onset_predictors
    fixed = [replace(one, status="positional, not testable") for one in made["backtracking"]]
    rewrite_shortlist(cfg, onset_predictors={**made, "backtracking": fixed})
    seal(cfg.folder / "rank")
    assert run(cfg).counts["behaviours"] == 1
