"""What every test stands on: shapes checked at run time, no network, tiny real models."""

import os
import tempfile
from pathlib import Path

# Before any library reads them: tests never reach for a hub, a server or the user's folders.
_SCRATCH = tempfile.mkdtemp(prefix="sae_reasoning_tests_")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    WANDB_ERROR_REPORTING="false",
    **{f"WANDB_{name}_DIR": _SCRATCH for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT")},
)
os.environ.pop("WANDB_API_KEY", None)

import atexit  # noqa: E402
import shutil  # noqa: E402

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("sae_reasoning", "shape_checker.checked")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from sae_reasoning.config import Config, ModelConfig, PairConfig  # noqa: E402
from sae_reasoning.edges.lm.load import new_llama, save_model, word_tokenizer  # noqa: E402
from sae_reasoning.organisms import grammar  # noqa: E402

torch.set_num_threads(1)
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two random Llamas of three blocks that speak the organisms' words, saved as folders."""
    root = tmp_path_factory.mktemp("models")
    words = grammar.vocabulary()
    pad, bos, eos = grammar.PAD, grammar.BOS, grammar.EOS
    tokenizer = word_tokenizer(words, pad=pad, bos=bos, eos=eos)
    for seed, name in enumerate(("tiny_base", "tiny_rl")):
        model = new_llama(
            vocab_size=len(words),
            d_model=32,
            num_layers=3,
            num_heads=2,
            d_mlp=64,
            max_positions=1024,
            pad_id=words.index(pad),
            bos_id=words.index(bos),
            eos_id=words.index(eos),
            seed=seed,
        )
        save_model(model, tokenizer, root / name, torch.float32)
    return PairConfig(
        name="tiny",
        base=ModelConfig(path=str(root / "tiny_base")),
        rl=ModelConfig(path=str(root / "tiny_rl")),
    )


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_pair: PairConfig) -> Config:
    """An experiment of seconds on the tiny pair, with results below the test's own folder."""
    config = Config(pair=tiny_pair, behaviours=list(grammar.MOVES), runs=str(tmp_path / "runs"))
    config.layers = [0, 1]
    config.device = "cpu"
    config.tracker.kind = "none"
    config.traces.num_problems = 8
    config.traces.base_samples = config.traces.rl_samples = 2
    config.traces.max_new_tokens = 24
    config.cache.token_budget = 2048
    config.cache.shard_tokens = 512
    config.train.sae.d_sae, config.train.sae.k = 64, 4
    config.train.steps, config.train.batch_size = 20, 128
    config.train.mixing_tokens, config.train.checkpoint_every = 512, 10
    config.rank.bootstrap, config.rank.random_directions = 20, 8
    config.rank.trackers = config.rank.announcers = config.rank.candidates = 3
    config.rank.attribution_onsets = 8
    config.ablate.num_problems, config.ablate.max_new_tokens = 3, 16
    config.ablate.num_latents, config.ablate.controls, config.ablate.bootstrap = 2, 1, 20
    return config
