"""The transfer stage, on pairs that were edited through each other by hand."""

import io
import re
import shutil

import pandas as pd
import pytest
from recorded import hold_to_record
from steering.transferred import MATCHED_LATENTS, effects_of

from sae_reasoning.config import Config, ConfigError, TransferConfig
from sae_reasoning.edges.artifacts import Manifest, MissingInput, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.transfer import transfer


def edit_through(cfg: Config, source: str, target: str, **options: object) -> None:
    """What `ablate` leaves behind in the target."""
    cfg.pair.name, cfg.ablate.matches_of = target, f"{cfg.experiment}/{source}"
    for name, value in options.items():
        setattr(cfg.ablate, name, value)
    found = pd.concat([effects_of(), effects_of("base", "clamp")])
    with Stage(cfg.place("ablate"), cfg.settings("ablate"), {}) as stage:
        write_table(stage.folder / "effects.parquet", found)
        write_table(stage.folder / "matched_latents.parquet", MATCHED_LATENTS)
        stage.finish({})


def run(cfg: Config) -> tuple[Manifest, str]:
    stream = io.StringIO()
    made = transfer(cfg, tracker=NullTracker(), console=Console(stream=stream, verbose=True))
    return made, stream.getvalue()


@pytest.fixture
def cfg(tiny_config: Config) -> Config:
    for source, target in (("one", "two"), ("two", "one")):
        edit_through(tiny_config, source, target)
    return tiny_config


def test_tables_are_the_recorded_ones(cfg):
    run(cfg)
    hold_to_record(cfg.place("transfer"))


def test_pairs_that_were_edited_through_each_other_make_a_matrix(cfg):
    made, said = run(cfg)
    folder = cfg.place("transfer")
    assert folder == cfg.folder.parent / "transfer"
    assert {path.name for path in folder.iterdir()} == {
        *("transfer.parquet", "transfer.png", "manifest.json")
    }
    table = read_table(folder / "transfer.parquet")
    assert made.counts == {"cells": len(table), "pairs": 2}
    assert len(table) == 2 * 2 * 2
    across = table[(table.source == "one") & (table.target == "two")].set_index("model")
    assert across.carries_over.to_dict() == {"rl": True, "base": False}
    assert table[table.source == table.target].carries_over.isna().all()
    assert "-0.81* (-0.03)" in said
    assert "up to date" in run(cfg)[1]


def test_one_direction_alone_is_shown_where_no_pairs_are_named(cfg):
    shutil.rmtree(cfg.folder.parent / "one")
    run(cfg)
    table = read_table(cfg.place("transfer") / "transfer.parquet")
    assert set(zip(table.source, table.target, strict=True)) == {("one", "two"), ("two", "two")}


def test_a_pair_that_was_not_edited_through_another_is_named_with_what_to_run(cfg):
    cfg.transfer = TransferConfig(pairs=["one", "three"])
    with pytest.raises(MissingInput, match=r'make match ARGS="pair=one match.other=default/three"'):
        run(cfg)
    cfg.transfer, cfg.experiment = TransferConfig(), "empty"
    with pytest.raises(MissingInput, match="no pair that was edited through another's latents"):
        run(cfg)


def test_edits_of_another_version_are_refused_with_what_to_run(cfg):
    file = cfg.folder.parent / "two" / "ablate_from_default_one" / "manifest.json"
    file.write_text(re.sub(r'"version": \d+', '"version": 1', file.read_text()))
    with pytest.raises(MissingInput, match="another version of ablate; run `make match"):
        run(cfg)


def test_edits_made_with_other_options_are_not_joined(cfg):
    edit_through(cfg, "one", "three", num_latents=7)
    with pytest.raises(ConfigError, match="were made with different options"):
        run(cfg)


@pytest.mark.parametrize("pairs", [["one"], ["one", "one"], ["default/one", "two"]])
def test_pairs_that_make_no_matrix_are_refused(pairs):
    with pytest.raises(ConfigError, match=r"transfer\.pairs="):
        TransferConfig(pairs=pairs)
