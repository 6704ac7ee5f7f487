import io
import json
import multiprocessing
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.artifacts import BrokenArtifact, Manifest, MissingInput, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import SpecialTokens, save_model, word_tokenizer
from sae_reasoning.edges.lm.load import load, load_tokenizer
from sae_reasoning.edges.tables import read_traces, write_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.records import Trace
from sae_reasoning.tasks.search import grammar

NUM_PROMPT = 6


def put_traces(cfg: Config, num_traces: int = 12, max_tokens: int = 60, **values: object) -> None:
    """Finish a traces stage with random words; the lengths differ."""
    rng = np.random.default_rng(0)
    tokenizer = load_tokenizer(cfg.pair.base)
    traces = []
    for number in range(num_traces):
        words = rng.integers(10, len(tokenizer), rng.integers(NUM_PROMPT, max_tokens)).tolist()
        trace = Trace(
            trace_id=f"p{number // 4}/{number % 4}",
            problem_id=f"p{number // 4}",
            split="select" if number < num_traces // 2 else "report",
            writer=("base", "rl")[number % 2],
            model="tiny",
            prompt="",
            text="",
            token_ids=(tokenizer.bos_token_id, *words),
            num_prompt_tokens=NUM_PROMPT,
            correct=None,
            truncated=False,
            spans=(),
            opportunities=(),
        )
        traces.append(replace(trace, **values))
    with Stage(cfg.folder / "traces", cfg.settings("traces"), {}) as stage:
        write_traces(stage.folder / "traces.parquet", traces)
        stage.finish({"traces": num_traces})


def run(cfg: Config) -> tuple[Manifest, str]:
    out = io.StringIO()
    manifest = cache(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return manifest, out.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize(("tokens", "first"), [("response", NUM_PROMPT - 1), ("all", 1)])
def test_cache_keeps_what_transformers_says_and_neither_bos_nor_padding(tiny_config, tokens, first):
    tiny_config.cache.tokens, tiny_config.cache.dtype = tokens, "float32"
    put_traces(tiny_config)
    manifest, _ = run(tiny_config)
    bos = load_tokenizer(tiny_config.pair.base).bos_token_id
    for reader, config in (("base", tiny_config.pair.base), ("rl", tiny_config.pair.rl)):
        lm = load(config, "cpu")
        for layer in tiny_config.layers:
            store = ActivationStore.open(tiny_config.folder / "cache" / reader / f"layer_{layer}")
            assert store.attributes.model_fingerprint == lm.facts.fingerprint
            assert store.num_tokens == manifest.counts["rows"]
            assert not (store.token_id == bos).any()
            for trace in range(12):
                rows = range(*store.row_of_trace[trace : trace + 2].tolist())
                here = slice(rows.start, rows.stop)
                assert store.position[here].tolist() == list(range(first, first + len(rows)))
                token_ids = tokens_of(tiny_config, trace)
                assert store.token_id[here].tolist() == list(token_ids[first:])
                with torch.no_grad():
                    out = lm.model(torch.tensor([token_ids]), output_hidden_states=True)
                expected = out.hidden_states[layer + 1][0, first:]
                torch.testing.assert_close(store.read(rows), expected)


def tokens_of(cfg: Config, trace: int) -> tuple[int, ...]:
    return read_traces(cfg.folder / "traces" / "traces.parquet")[trace].token_ids


def test_both_readers_have_the_same_rows_and_the_plan_comes_first(tiny_config):
    put_traces(tiny_config)
    manifest, shown = run(tiny_config)
    stores = [
        ActivationStore.open(tiny_config.folder / "cache" / reader / "layer_1")
        for reader in ("base", "rl")
    ]
    check_same_rows(*stores)
    assert not torch.equal(stores[0].read(range(9)), stores[1].read(range(9)))
    assert shown.index("disk") < shown.index("base reads") < shown.index("next: make train")
    for reader in ("base", "rl"):
        counts = manifest.counts[reader]
        assert counts["tokens"] > manifest.counts["rows"]
        assert counts["tokens_per_second"] > 0
        assert counts["bytes"] == manifest.counts["rows"] * 2 * (32 * 2 + 12 + 4)


def test_a_second_run_does_nothing_and_a_changed_value_reruns(tiny_config):
    put_traces(tiny_config)
    first, _ = run(tiny_config)
    again, shown = run(tiny_config)
    assert again == first
    assert "up to date" in shown
    tiny_config.cache.dtype = "bfloat16"
    changed, _ = run(tiny_config)
    assert changed.fingerprint != first.fingerprint
    store = ActivationStore.open(tiny_config.folder / "cache" / "rl" / "layer_0")
    assert store.dtype == "bfloat16"


@pytest.mark.e2e
def test_interrupted_cache_resumes_to_the_same_bytes(tiny_config):
    tiny_config.cache.shard_tokens, tiny_config.cache.token_budget = 100, 200
    put_traces(tiny_config, num_traces=100)
    run(tiny_config)
    folder = tiny_config.folder / "cache"
    whole = contents(folder)
    shutil.rmtree(folder)
    process = multiprocessing.get_context("fork").Process(target=run, args=(tiny_config,))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tiny_config.folder.glob("cache.partial-*/*/*/shard_*.h5"))) < 9:
        assert process.is_alive(), "the cache ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not folder.exists()
    (partial,) = tiny_config.folder.glob("cache.partial-*")
    published = {path: path.stat().st_mtime_ns for path in partial.rglob("shard_*.h5")}
    assert 9 <= len(published) < len(whole)
    (partial / "base" / "layer_0" / ".shard_00099.h5.1.tmp").write_bytes(b"half")
    _, shown = run(tiny_config)
    assert f"{len(published)} there" in shown
    assert contents(folder) == whole
    kept = {folder / path.relative_to(partial): at for path, at in published.items()}
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_missing_traces_name_the_target_that_makes_them(tiny_config):
    with pytest.raises(MissingInput, match="make traces"):
        run(tiny_config)


def test_empty_traces_are_refused(tiny_config):
    put_traces(tiny_config, num_traces=0)
    with pytest.raises(BrokenArtifact, match="holds no trace"):
        run(tiny_config)


def test_traces_of_which_nothing_is_kept_are_refused(tiny_config):
    put_traces(tiny_config, token_ids=(1,), num_prompt_tokens=1)
    with pytest.raises(ConfigError, match="keeps none of 12 traces' tokens"):
        run(tiny_config)


def test_layer_out_of_range_is_refused_before_weights_are_read(tiny_config, tmp_path):
    put_traces(tiny_config)
    without_weights(tiny_config, tmp_path)
    tiny_config.layers = [1, 7]
    with pytest.raises(
        ConfigError, match=r"layers=\[1, 7\].*0\.\.2; choose layers below 3"
    ) as error:
        run(tiny_config)
    assert "tiny_rl" in str(error.value) or "tiny_base" in str(error.value)


def without_weights(cfg: Config, tmp_path: Path) -> None:
    """Point the pair at copies whose weights can't be loaded."""
    for name in ("base", "rl"):
        model = getattr(cfg.pair, name)
        copy = tmp_path / Path(model.path).name
        shutil.copytree(model.path, copy)
        (copy / "model.safetensors").write_bytes(b"no weights")
        cfg.pair = replace(cfg.pair, **{name: replace(model, path=str(copy))})


def test_too_small_a_disk_is_refused_before_weights_are_read(tiny_config, tmp_path):
    put_traces(tiny_config)
    without_weights(tiny_config, tmp_path)
    path = Path(tiny_config.pair.rl.path) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 10**12}))
    with pytest.raises(ConfigError, match=r"B free, the cache needs \d+.* TB; .*set runs="):
        run(tiny_config)


def test_a_folder_that_cannot_be_written_is_refused(tiny_config):
    put_traces(tiny_config)
    target = tiny_config.folder
    moved = target.with_name("elsewhere")
    target.rename(moved)
    target.mkdir()
    (target / "traces").symlink_to(moved / "traces")
    target.chmod(0o555)
    chattr = shutil.which("chattr") or "true"
    subprocess.run([chattr, "+i", target], check=False, capture_output=True)  # Stops root too.
    try:
        if writable(target):
            pytest.skip("this user may write anywhere")
        with pytest.raises(ConfigError, match="can't be written"):
            run(tiny_config)
    finally:
        subprocess.run([chattr, "-i", target], check=False, capture_output=True)
        target.chmod(0o755)


def writable(folder: Path) -> bool:
    try:
        (folder / "probe").touch()
    except OSError:
        return False
    return True


def test_models_with_other_tokens_are_refused(tiny_config, tmp_path):
    put_traces(tiny_config)
    words = grammar.vocabulary()
    words[20], words[21] = words[21], words[20]
    tokenizer = word_tokenizer(words, SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS))
    save_model(load(tiny_config.pair.rl, "cpu").model, tokenizer, tmp_path / "rl", torch.float32)
    other = replace(tiny_config.pair.rl, path=str(tmp_path / "rl"))
    tiny_config.pair = replace(tiny_config.pair, rl=other)
    with pytest.raises(ConfigError, match=r"another tokenizer.*share a tokenizer"):
        run(tiny_config)


def test_traces_with_tokens_the_models_lack_are_refused(tiny_config):
    put_traces(tiny_config, token_ids=(1, 2, 3, 4, 5, 6, 70_000))
    with pytest.raises(ConfigError, match=r"no token 70000, which trace p0/0 holds"):
        run(tiny_config)


def test_a_model_whose_activations_are_nan_is_refused_and_the_old_cache_stays(
    tiny_config, tmp_path
):
    put_traces(tiny_config)
    run(tiny_config)
    before = contents(tiny_config.folder / "cache")
    broken = tmp_path / "tiny_rl"
    shutil.copytree(tiny_config.pair.rl.path, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    rl = replace(tiny_config.pair.rl, path=str(broken))
    tiny_config.pair = replace(tiny_config.pair, rl=rl)
    with pytest.raises(ConfigError, match=r"layer 1 are NaN on trace p0/0, position 5; .*float32"):
        run(tiny_config)
    assert contents(tiny_config.folder / "cache") == before
