"""The match job on tiny pairs: a permuted copy of a dictionary, and a family with other tokens."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from behaviours.examples import narrated_traces
from recorded import hold_to_record
from safetensors.torch import load_file, save_file
from sealed import seal

from sae_reasoning.behaviours.matches import MATCHES
from sae_reasoning.config import Config, ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    MissingInput,
    read_json,
    write_json,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs import match as match_job
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.match import match
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train
from sae_reasoning.readings import matched_runs
from sae_reasoning.tasks.search.grammar import BACKTRACKING, DEDUCTION

ORDER = np.random.default_rng(0).permutation(32)
"""Latent i of the permuted copy is latent ORDER[i] of the first run's dictionary."""


def quiet() -> dict:
    return {"tracker": NullTracker(), "console": Console(io.StringIO())}


def run(config: Config) -> str:
    """What the job prints."""
    printed = io.StringIO()
    match(config, tracker=NullTracker(), console=Console(printed, verbose=True))
    return printed.getvalue()


def config_of(
    root: Path, pair: PairConfig, experiment: str = "default", *, sources: Path | None = None
) -> Config:
    config = Config(pair=pair, behaviours=[DEDUCTION, BACKTRACKING], runs=str(root / "runs"))
    config.experiment, config.layers = experiment, [0, 1]
    config.device, config.tracker.kind = "cpu", "none"
    config.traces.source = str((sources or root) / f"{pair.name}.jsonl")
    config.train.sae.d_sae, config.train.sae.k = 32, 4
    config.train.steps, config.train.batch_size, config.train.mixing_tokens = 30, 128, 512
    config.rank.bootstrap, config.rank.random_directions, config.rank.attribution_onsets = 20, 4, 4
    config.rank.gate = False  # So short a training passes none.
    config.rank.injection_texts = 2  # Nothing here reads the attacks.
    config.rank.span_detectors = config.rank.onset_predictors = config.rank.candidates = 3
    config.match.null_draws, config.match.bootstrap, config.match.min_fires = 20, 50, 5
    return config


def write_source(root: Path, pair: PairConfig, words_of: PairConfig, *, odd: str = "") -> None:
    """Narrated traces to be imported; the base's end in odd words."""
    tokenizer = load_tokenizer(words_of.base)
    narrated = narrated_traces(lambda text: tokenizer(text, add_special_tokens=False).input_ids, 24)
    lines = [
        json.dumps(
            {
                "problem_id": t.problem_id,
                "writer": t.writer,
                "prompt": t.prompt,
                "text": t.text + odd * (t.writer == "base"),
                "spans": [
                    {"behaviour": s.behaviour, "char_start": s.char_start, "char_end": s.char_end}
                    for s in t.spans
                ],
            }
        )
        for t in narrated
    ]
    (root / f"{pair.name}.jsonl").write_text("\n".join(lines))


def permute(config: Config) -> None:
    """Exchange each SAE for itself with its latents in another order."""
    for layer in config.layers:
        folder = config.folder / "train" / config.train.readers / f"layer_{layer}"
        weights = load_file(folder / "sae_weights.safetensors")
        order = torch.from_numpy(ORDER)
        weights["W_dec"] = weights["W_dec"][order].contiguous()
        weights["W_enc"] = weights["W_enc"][:, order].contiguous()
        weights["b_enc"] = weights["b_enc"][order].contiguous()
        save_file(weights, folder / "sae_weights.safetensors")
        quality = read_json(folder / "quality.json")
        known = quality | {"fingerprint": load_dictionary(folder).fingerprint}
        write_json(folder / "quality.json", known)
    seal(config.folder / "train")


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, tiny_pair: PairConfig, tiny_neox_pair: PairConfig
) -> Path:
    """Ranked runs of both families, and one whose dictionary is the first's in another order."""
    root = tmp_path_factory.mktemp("match")
    write_source(root, tiny_pair, tiny_pair)
    write_source(root, tiny_neox_pair, tiny_pair, odd=" zebra .")
    for pair in (tiny_pair, tiny_neox_pair):
        config = config_of(root, pair)
        for job in (traces, cache, train):
            job(config, **quiet())
    first, copied = config_of(root, tiny_pair), config_of(root, tiny_pair, "permuted")
    shutil.copytree(first.folder, copied.folder)
    permute(copied)
    for config in (first, copied, config_of(root, tiny_neox_pair)):
        rank(config, **quiet())
    return root


@pytest.fixture
def config(tmp_path: Path, template: Path, tiny_pair: PairConfig) -> Config:
    shutil.copytree(template / "runs", tmp_path / "runs")
    config = config_of(tmp_path, tiny_pair, sources=template)
    config.match.other = "permuted/tiny"
    return config


def looking_in(config: Config, other: str, model: ModelConfig) -> Config:
    config.match = replace(config.match, other=other, model=replace(model))
    return config


@pytest.fixture
def across(config: Config, tiny_neox_pair: PairConfig) -> Config:
    """The Llama's latents looked for in the GPT-NeoX's."""
    return looking_in(config, "default/tiny_neox", tiny_neox_pair.rl)


def matches_of(config: Config) -> pd.DataFrame:
    return read_table(config.folder / "match" / "matches.parquet")


def test_a_permuted_copy_of_a_dictionary_is_matched_exactly(config: Config) -> None:
    printed = run(config)
    found = matches_of(config)
    assert list(found.columns) == MATCHES
    hold_to_record(config.folder / "match")
    assert set(found.by) == {"cosine", "correlation"}
    assert set(zip(found.layer, found.other_layer, strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    same = found[found.layer == found.other_layer]
    assert len(same) > 30
    assert (ORDER[same.other_latent] == same.latent).all()
    assert same.value.to_numpy() == pytest.approx(1, abs=1e-5)
    assert same.is_mutual.all()
    assert same.is_assigned.all()
    assert (same.value > same.null_99).all()
    activations = found[found.by == "correlation"]
    assert activations.n.eq(activations.n.iloc[0]).all()
    listed = (activations.behaviours != "") | (activations.other_behaviours != "")
    assert listed.any()
    assert activations.low.notna().equals(listed)
    assert "the same model" in printed
    # The copy's own ranking lists the same latents, so span detectors find span detectors.
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2] == ["correlation"]]
    span_detectors = [row for row in rows if row[0] in (DEDUCTION, BACKTRACKING)]
    assert len(span_detectors) == 2
    assert all(row[2:4] == ["3", "3"] and int(row[7]) >= 2 for row in span_detectors), (
        span_detectors
    )


def test_another_family_reads_the_same_texts_and_is_matched_by_words(across: Config) -> None:
    printed = run(across)
    found = matches_of(across)
    assert set(found.by) == {"words"}
    assert found.same_word.notna().all()
    # Even models that were never trained tell words apart.
    assert found.value.median() > found.null_95.median()
    manifest = Manifest.read(across.folder / "match")
    assert manifest is not None
    words = sum(
        len(json.loads(line)["text"].split())
        for line in Path(across.traces.source).read_text(encoding="utf-8").splitlines()
    )
    assert 0.3 * words < manifest.counts["units"] < 0.7 * words  # The report half.
    assert manifest.counts["traces_left_out"] == 0
    assert "reads the same texts: activations by word" in printed
    summary = read_table(across.folder / "match" / "summary.parquet")
    assert len(summary) == 4
    assert summary.n.gt(0).all()
    assert summary.found.between(0, 1).all()


def test_texts_that_the_other_tokenizer_cannot_express_are_left_out_and_counted(
    config: Config, template: Path, tiny_pair: PairConfig, tiny_neox_pair: PairConfig
) -> None:
    config = config_of(Path(config.runs).parent, tiny_neox_pair, sources=template)
    looking_in(config, "default/tiny", tiny_pair.rl)
    printed = run(config)
    manifest = Manifest.read(config.folder / "match")
    assert manifest is not None
    assert manifest.counts["traces_left_out"] == manifest.counts["traces"] == 12
    assert "warning: 12 of 24 texts are left out: the tokenizer of match.model.path=" in printed


def test_a_second_run_does_nothing_and_another_run_to_look_in_does(
    config: Config, across: Config
) -> None:
    run(across)
    assert run(across) == f"match: {across.folder / 'match'} is up to date\n"
    across.match.other = "permuted/tiny"
    assert "the same model" in run(across)


def test_a_killed_match_goes_on_at_the_first_missing_pair_of_layers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config)
    whole = matches_of(config)
    shutil.rmtree(config.folder / "match")
    compare, compared = match_job._compare, []

    def killed_at_the_third(cfg, data, own, other, console) -> pd.DataFrame:
        compared.append((own.layer, other.layer))
        if len(compared) == 3:
            raise KeyboardInterrupt
        return compare(cfg, data, own, other, console)

    monkeypatch.setattr(match_job, "_compare", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert not (config.folder / "match").exists()
    run(config)
    assert compared == [(0, 0), (0, 1), (1, 0), (1, 0), (1, 1)]
    pd.testing.assert_frame_equal(matches_of(config), whole)
    assert not list(config.folder.glob("match.partial-*"))


def test_layers_of_the_other_run_that_the_cache_lacks_are_left_out(config: Config) -> None:
    copied = Path(config.runs) / "permuted" / "tiny" / "train" / "pooled"
    shutil.copytree(copied / "layer_1", copied / "layer_2")
    path = copied / "layer_2" / "cfg.json"
    path.write_text(json.dumps(read_json(path) | {"metadata": {"layer": 2}}))
    (copied / "layer_2" / "quality.json").unlink()
    printed = run(config)
    assert "warning: layers [2] of" in printed
    assert set(matches_of(config).other_layer) == {0, 1}


def nowhere(config: Config) -> None:
    config.match.other = "default/nobody"


def unnamed(config: Config) -> None:
    config.match.other = ""


def unknown_reader(config: Config) -> None:
    config.match.other, config.match.model.path = "default/tiny_neox", ""


def another_reader(config: Config) -> None:
    config.match.other, config.match.model.path = "default/tiny_neox", config.pair.base.path


def silent(config: Config) -> None:
    config.match.min_fires = 10**6


def outdated(config: Config) -> None:
    manifest = Path(config.runs) / config.match.other / "rank" / "manifest.json"
    made = read_json(manifest)
    write_json(manifest, made | {"config": made["config"] | {"version": 0}})


def unranked(config: Config) -> None:
    shutil.rmtree(config.folder / "rank")


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (unnamed, ConfigError, "match.other is empty"),
        (nowhere, MissingInput, "nobody/train is missing; run `make train` with that experiment"),
        (unknown_reader, ConfigError, "name its folder as match.model.path"),
        (another_reader, ConfigError, "isn't the rl model of match.other=default/tiny_neox"),
        (silent, ConfigError, "match.min_fires=1000000: no latent"),
        (outdated, MissingInput, r"permuted/tiny/rank was made .* \(version=0, now"),
        (unranked, MissingInput, "run `make rank` first"),
    ],
)
def test_what_cannot_be_matched_is_refused(
    config: Config, harm: Callable[[Config], None], error: type[Exception], says: str
) -> None:
    harm(config)
    with pytest.raises(error, match=says):
        run(config)
    assert not (config.folder / "match").exists()


def test_a_language_without_any_of_the_words_is_refused(
    across: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched_runs, "expresses", lambda tokenizer, text: False)
    with pytest.raises(ConfigError, match="can't express any of the 24 texts; choose"):
        run(across)


def test_tokens_that_are_not_the_texts_are_refused(
    across: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = matched_runs.offsets_of

    def shifted(tokenizer, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
        return found(tokenizer, [ids[-1], *ids[:-1]], text)

    monkeypatch.setattr(matched_runs, "offsets_of", shifted)
    with pytest.raises(BrokenArtifact, match="has other tokens than its text"):
        run(across)
