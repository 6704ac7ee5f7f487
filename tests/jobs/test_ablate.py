"""The ablate stage, on a tiny pair with real dictionaries and a shortlist made by hand."""

import io
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sae_reasoning.config import Config, ConfigError, SaeConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    Stage,
    fingerprint,
    read_json,
    write_json,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import describe
from sae_reasoning.edges.sae_checkpoint import build_training_sae, finish
from sae_reasoning.edges.tables import read_table, read_traces, write_table, write_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs import ablate as job
from sae_reasoning.records import Trace
from sae_reasoning.traces.problems import draw_search_problems

SHORTLIST = {"backtracking": [(0, 3), (1, 5)], "verification": [(1, 7)]}


def make_inputs(cfg: Config) -> None:
    """Problems of the world, dictionaries as sae-lens saves them, a shortlist made by hand."""
    problems = draw_search_problems(cfg.traces.num_problems, 0.5, seed=0)
    with Stage(cfg.folder / "traces", cfg.settings("traces"), {}) as stage:
        write_traces(
            stage.folder / "traces.parquet",
            [
                Trace(
                    trace_id=f"{problem.problem_id}/rl",
                    problem_id=problem.problem_id,
                    split=problem.split,
                    writer="rl",
                    model="tiny_rl",
                    prompt=problem.prompt,
                    text="so",
                    token_ids=(1, 2),
                    num_prompt_tokens=1,
                    correct=False,
                    truncated=True,
                    spans=(),
                    opportunities=(),
                )
                for problem in problems
            ],
        )
        made = {"traces": stage.finish({}).fingerprint}
    made |= {model: describe(getattr(cfg.pair, model)).fingerprint for model in ("base", "rl")}
    with Stage(cfg.folder / "train", cfg.settings("train"), made) as stage:
        for layer in cfg.layers:
            sae = build_training_sae(
                SaeConfig(d_sae=64, k=8), d_in=32, seed=layer, steps=1, metadata={"layer": layer}
            )
            finish(sae, 1.0).save(stage.folder / "pooled" / f"layer_{layer}")
        made["train"] = stage.finish({}).fingerprint
    write_rank(cfg, SHORTLIST, made)


def write_rank(
    cfg: Config, announcers: dict[str, list[tuple[int, int]]], inputs: dict[str, str]
) -> None:
    from sae_reasoning.edges.sae_checkpoint import load_dictionary

    names = {layer: f"pooled/layer_{layer}" for layer in cfg.layers}
    rng = np.random.default_rng(0)
    rates, means = rng.lognormal((-2.0, 0.0), size=(64, 2)).T
    latents = [
        {
            "dictionary": names[layer],
            "layer": layer,
            "latent": latent,
            "reader": reader,
            "writer": writer,
            "firing_rate": min(rates[latent], 1.0),
            "mean_active": means[latent],
            "max_active": 4 * means[latent],
        }
        for layer in cfg.layers
        for reader in ("base", "rl")
        for writer in ("base", "rl")
        for latent in range(64)
    ]
    with Stage(
        cfg.folder / "rank",
        cfg.settings("rank"),
        dict(inputs) | {"announcers": fingerprint(announcers)},
    ) as stage:
        write_table(stage.folder / "latents.parquet", pd.DataFrame(latents))
        shortlist = {
            "schema_version": 1,
            "dictionaries": {
                name: {
                    "folder": f"train/{name}",
                    "fingerprint": load_dictionary(cfg.folder / "train" / name).fingerprint,
                }
                for name in names.values()
            },
            "trackers": {"deduction": [{"layer": 0, "latent": 1}]},
            "announcers": {
                behaviour: [{"layer": layer, "latent": latent} for layer, latent in chosen]
                for behaviour, chosen in announcers.items()
            },
        }
        write_json(stage.folder / "shortlist.json", shortlist)
        stage.finish({})


def quiet() -> Console:
    return Console(stream=io.StringIO())


def run(cfg: Config, console: Console | None = None):
    return job.ablate(cfg, tracker=NullTracker(), console=console or quiet())


@pytest.fixture
def cfg(tiny_config: Config) -> Config:
    make_inputs(tiny_config)
    tiny_config.ablate.batch_size, tiny_config.ablate.max_new_tokens = 16, 8
    return tiny_config


def test_ablate_generates_every_condition_on_report_problems_only(cfg):
    console = quiet()
    manifest = run(cfg, console)
    folder = cfg.folder / "ablate"
    rows = read_table(folder / "generations.parquet")
    split = {t.problem_id: t.split for t in read_traces(cfg.folder / "traces" / "traces.parquet")}
    assert {split[problem] for problem in rows.problem_id} == {"report"}
    # One condition without an edit; for each of 2 moves and 2 edits, the edit and its 2 controls.
    assert manifest.counts == {
        "problems": 3,
        "behaviours": 2,
        "conditions": 2 * 13,
        "generations": 13 * 3 * (1 + 2),
    }
    per_condition = rows.groupby(["model", "behaviour", "edit", "condition", "draw"]).size()
    assert set(per_condition["rl"]) == {3}
    assert set(per_condition["base"]) == {6}
    assert rows.num_tokens.le(8).all()
    assert (rows.num_tokens[rows.truncated] == 8).all()
    assert rows.norm_sum[rows.condition == "none"].eq(0).all()
    assert sorted(path.name for path in folder.iterdir()) == [
        "effects.parquet",
        "effects.png",
        "generations.parquet",
        "manifest.json",
    ]
    found = read_table(folder / "effects.parquet")
    assert set(found.condition) == {"none", "edit", "matched_latent", "random_direction"}
    assert set(found.layer) == {"0+1", "1"}
    assert set(found.split) == {"report"}
    assert "matched" in console.stream.getvalue()


def test_the_select_split_has_its_own_folder_and_leaves_the_reported_result(cfg):
    cfg.ablate.behaviours = ["verification"]
    reported = run(cfg)
    cfg.ablate.split = "select"
    console = quiet()
    run(cfg, console)
    assert "on the select split" in console.stream.getvalue()
    rows = read_table(cfg.folder / "ablate_select" / "generations.parquet")
    split = {t.problem_id: t.split for t in read_traces(cfg.folder / "traces" / "traces.parquet")}
    assert {split[problem] for problem in rows.problem_id} == {"select"}
    found = read_table(cfg.folder / "ablate_select" / "effects.parquet")
    assert set(found.split) == {"select"}
    assert Manifest.read(cfg.folder / "ablate") == reported


def test_only_moves_and_layers_of_the_config_are_edited(tiny_config):
    tiny_config.behaviours = ["backtracking"]
    tiny_config.ablate.batch_size, tiny_config.ablate.max_new_tokens = 16, 8
    make_inputs(tiny_config)
    made = Manifest.read(tiny_config.folder / "rank").inputs
    write_rank(tiny_config, SHORTLIST | {"backtracking": [(7, 2), (0, 3)]}, made)
    assert run(tiny_config).counts["behaviours"] == 1
    found = read_table(tiny_config.folder / "ablate" / "effects.parquet")
    assert set(found.behaviour) == {"backtracking"}
    assert set(found.layer) == {"0"}


def test_clamps_change_text_and_their_controls_are_as_large(cfg):
    cfg.ablate.clamp_multiple, cfg.ablate.behaviours = 20.0, ["backtracking"]
    run(cfg)
    rows = read_table(cfg.folder / "ablate" / "generations.parquet")
    clamped = rows[(rows.model == "rl") & (rows.edit == "clamp")]
    none = rows[(rows.model == "rl") & (rows.condition == "none")].set_index("problem_id").text
    edited = clamped[clamped.condition == "edit"]
    assert (edited.text.to_numpy() != none[edited.problem_id].to_numpy()).any()
    sizes = clamped.norm_sum / clamped.num_edited
    assert sizes.min() > 20
    means = sizes.groupby([clamped.behaviour, clamped.condition]).mean().unstack().to_numpy()
    assert means.max(axis=1) / means.min(axis=1) == pytest.approx(1, abs=0.2)


def test_a_second_run_does_nothing_and_another_config_reruns(cfg):
    cfg.ablate.behaviours = ["verification"]
    first = run(cfg)
    console = quiet()
    assert run(cfg, console) == first
    assert "up to date" in console.stream.getvalue()
    cfg.ablate.behaviours = ["backtracking"]
    again = run(cfg)
    assert again.counts["conditions"] == 2 * 7
    generations = read_table(cfg.folder / "ablate" / "generations.parquet")
    assert set(generations.behaviour) == {"", "backtracking"}


def run_and_die(cfg: Config, num_parts: int) -> None:
    """Run the stage in a child that kills itself once it has published that many parts."""

    def die_at_part(path: Path, columns: object) -> None:
        write_table(path, columns)
        if len(list(path.parent.glob("*.parquet"))) == num_parts:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        job.write_table = die_at_part
        run(cfg)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("num_parts", [1, 9])
def test_killed_ablate_resumes_to_the_same_generations(cfg, num_parts):
    cfg.ablate.behaviours = ["backtracking"]
    run_and_die(cfg, num_parts)
    assert not (cfg.folder / "ablate").exists()
    (partial,) = cfg.folder.glob("ablate.partial-*")
    parts = sorted((partial / "parts").iterdir())
    assert len(parts) == num_parts
    made_before = {part.name: part.stat().st_mtime_ns for part in parts}
    published = []

    def note(path: Path, columns: object) -> None:
        published.append(path.name)
        write_table(path, columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "write_table", note)
        run(cfg)
    assert not set(published) & set(made_before)
    resumed = read_table(cfg.folder / "ablate" / "generations.parquet")
    shutil.rmtree(cfg.folder / "ablate")
    run(cfg)
    unbroken = read_table(cfg.folder / "ablate" / "generations.parquet")
    pd.testing.assert_frame_equal(resumed, unbroken)


def test_rollouts_without_an_edit_are_what_the_model_says_alone(cfg, tiny_pair):
    cfg.ablate.behaviours = ["verification"]
    from sae_reasoning.edges.lm.generate import generate
    from sae_reasoning.edges.lm.load import encode_prompt, load
    from sae_reasoning.steering.noise import keyed_sampler

    run(cfg)
    rows = read_table(cfg.folder / "ablate" / "generations.parquet")
    none = rows[(rows.model == "rl") & (rows.condition == "none")]
    lm = load(tiny_pair.rl, "cpu")
    for row in none.itertuples():
        key = job._Problem(row.problem_id, row.prompt).key
        (rollout,) = generate(
            lm,
            [encode_prompt(lm.tokenizer, row.prompt)],
            sampler=keyed_sampler(torch.tensor([[cfg.ablate.seed, key, row.sample]]), 1.0),
            max_new_tokens=8,
            batch_size=1,
        )
        assert lm.decode(list(rollout.token_ids)) == row.text


def test_a_shortlist_from_another_dictionary_is_refused(cfg):
    path = cfg.folder / "rank" / "shortlist.json"
    shortlist = read_json(path)
    shortlist["dictionaries"]["pooled/layer_1"]["fingerprint"] = "0" * 16
    write_json(path, shortlist)
    with pytest.raises(BrokenArtifact, match=r"another dictionary.*make rank"):
        run(cfg)
    assert not (cfg.folder / "ablate").exists()


def test_a_move_that_is_not_shortlisted_is_refused(cfg):
    cfg.ablate.behaviours = ["deduction"]
    with pytest.raises(ConfigError, match=r"ablate.behaviours: deduction .* choose from"):
        run(cfg)


def test_an_empty_shortlist_is_refused(cfg):
    cfg.ablate.shortlist = "trackers"
    path = cfg.folder / "rank" / "shortlist.json"
    write_json(path, read_json(path) | {"trackers": {"deduction": []}})
    with pytest.raises(ConfigError, match=r"ablate.shortlist=trackers is empty"):
        run(cfg)


def test_too_many_latents_for_controls_is_refused(cfg):
    table = cfg.folder / "rank" / "latents.parquet"
    latents = read_table(table)
    latents.loc[latents.latent > 8, "firing_rate"] = 0.0
    write_table(table, latents)
    path = cfg.folder / "rank" / "shortlist.json"
    chosen = [{"layer": 0, "latent": latent} for latent in range(6)]
    write_json(path, read_json(path) | {"announcers": {"backtracking": chosen}})
    cfg.ablate.num_latents = 6
    with pytest.raises(ConfigError, match=r"ablate.num_latents=6, .* layer 0 .* lower them"):
        run(cfg)


@pytest.mark.parametrize("stage", ["traces", "train", "rank"])
def test_a_missing_stage_is_named(cfg, stage):
    shutil.rmtree(cfg.folder / stage)
    with pytest.raises(MissingInput, match=f"run `make {stage}` first"):
        run(cfg)


@pytest.mark.parametrize("changed", ["traces", "train", "base", "rl"])
def test_a_shortlist_made_from_other_inputs_is_refused(cfg, changed):
    made = Manifest.read(cfg.folder / "rank").inputs
    write_rank(cfg, SHORTLIST, made | {changed: "0" * 16})
    with pytest.raises(MissingInput, match=f"another {changed} than there is now; run `make rank"):
        run(cfg)


def test_a_move_that_is_only_positional_is_not_edited(cfg):
    path = cfg.folder / "rank" / "shortlist.json"
    announcers = read_json(path)["announcers"]
    for entry in announcers["backtracking"]:
        entry["status"] = "positional, not testable"
    write_json(path, read_json(path) | {"announcers": announcers})
    assert run(cfg).counts["behaviours"] == 1
