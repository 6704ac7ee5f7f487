"""What every test stands on: shapes checked at run time, no network, tiny real models."""

import os
import random
import tempfile
from copy import deepcopy
from dataclasses import dataclass
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

# The rooms that hold tensors; the organisms' world is plain Python called a million times.
install_import_hook(
    [f"sae_reasoning.{room}" for room in ("behaviours", "edges", "jobs", "stats", "steering")],
    "shape_checker.checked",
)

import pytest  # noqa: E402
import torch  # noqa: E402
from command_runner import Outcome, run_command  # noqa: E402
from hypothesis import settings  # noqa: E402
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from sae_reasoning.config import Config, ModelConfig, PairConfig, PretrainConfig  # noqa: E402
from sae_reasoning.edges.lm.create import (  # noqa: E402
    Shape,
    SpecialTokens,
    bpe_tokenizer,
    new_gpt_neox,
    new_llama,
    save_model,
    word_tokenizer,
)
from sae_reasoning.edges.lm.learn import plain_reader  # noqa: E402
from sae_reasoning.edges.lm.load import encode_prompt, encode_response  # noqa: E402
from sae_reasoning.organisms import grammar  # noqa: E402
from sae_reasoning.organisms.corpus import (  # noqa: E402
    CorpusConfig,
    Share,
    example,
    full_traces,
)
from sae_reasoning.organisms.narrator import MoveRates  # noqa: E402
from sae_reasoning.organisms.pretrain import pretrain  # noqa: E402

torch.set_num_threads(1)
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("suite")


SPECIAL = SpecialTokens(grammar.PAD, grammar.BOS, grammar.EOS)


def _new_tiny(seed: int) -> LlamaForCausalLM:
    shape = Shape(d_model=32, num_layers=3, num_heads=2, d_mlp=64, max_positions=1024)
    return new_llama(shape, _tokenizer(), seed)


def _tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(grammar.vocabulary(), SPECIAL)


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two random Llamas of three blocks that speak the organisms' words, saved as folders."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tiny_base", "tiny_rl")):
        save_model(_new_tiny(seed), _tokenizer(), root / name, torch.float32)
    return PairConfig(
        name="tiny",
        base=ModelConfig(path=str(root / "tiny_base")),
        rl=ModelConfig(path=str(root / "tiny_rl")),
    )


@pytest.fixture(scope="session")
def tiny_neox_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two random GPT-NeoXes of three blocks with a byte-pair tokenizer, saved as folders."""
    root = tmp_path_factory.mktemp("neox")
    rng = random.Random(0)
    texts = [text for _ in range(40) for text in example(rng, full_traces(), 0.0)]
    tokenizer = bpe_tokenizer(texts, 260, SPECIAL)
    shape = Shape(d_model=32, num_layers=3, num_heads=2, d_mlp=64, max_positions=1024)
    for seed, name in enumerate(("tiny_base", "tiny_rl")):
        save_model(new_gpt_neox(shape, tokenizer, seed), tokenizer, root / name, torch.float32)
    return PairConfig(
        name="tiny_neox",
        base=ModelConfig(path=str(root / "tiny_base")),
        rl=ModelConfig(path=str(root / "tiny_rl")),
    )


@pytest.fixture(scope="session")
def talking_pair(tmp_path_factory: pytest.TempPathFactory) -> PairConfig:
    """Two stages of one short training: they babble, with moves in it, and find nothing."""
    root = tmp_path_factory.mktemp("talking")
    tokenizer, model = _tokenizer(), _new_tiny(0)
    config = PretrainConfig(
        steps=150,
        batch_size=12,
        lr=1e-2,
        warmup=10,
        checkpoint_every=150,
    )
    corpus = CorpusConfig(
        reading=Share(0.0, 0.0, hold=0.0, settle=1.0),
        thinking=Share(1.0, 1.0, hold=0.0, settle=1.0),
        rates=MoveRates(backtrack=0.9, weigh=0.9, verify=0.9),
    )
    for progress in pretrain(
        model,
        config,
        corpus,
        seed=0,
        reader=plain_reader,
        encode_prompt=lambda text: encode_prompt(tokenizer, text),
        encode_response=lambda text: [
            *encode_response(tokenizer, text)[0],
            tokenizer.eos_token_id,
        ],
        pad_id=tokenizer.pad_token_id,
        state_path=root / "state",
    ):
        name = {100: "talking_base", 150: "talking_rl"}.get(progress.step)
        if name:
            save_model(model, tokenizer, root / name, torch.float32)
    return PairConfig(
        name="talking",
        base=ModelConfig(path=str(root / "talking_base")),
        rl=ModelConfig(path=str(root / "talking_rl")),
    )


@dataclass(frozen=True)
class Project:
    """A folder in which commands are run, and the options that make them small.

    Attributes:
        folder: Where the commands are run.
        options: Of every command.
    """

    folder: Path
    options: tuple[str, ...]

    @property
    def results(self) -> Path:
        """Where the stages are."""
        return self.folder / "runs" / "tiny" / "talking"

    def run(self, *arguments: str, **limits: int) -> Outcome:
        """Run a command with the project's options, which later ones override."""
        return run_command([*arguments, *self.options], self.folder, **limits)

    def copy(self, folder: Path, *stages: str) -> "Project":
        """A new project with copies of some finished stages."""
        copied = Project(folder, self.options)
        for stage in stages:
            shutil.copytree(self.results / stage, copied.results / stage)
        return copied


STAGES = ("traces", "cache", "train", "rank", "ablate", "contrast", "report")


@pytest.fixture(scope="session")
def made_project(talking_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which all stages have been run; tests copy it before they touch it."""
    project = Project(
        tmp_path_factory.mktemp("project"),
        (
            "experiment=tiny",
            "pair=local",
            "pair.name=talking",
            f"pair.base.path={talking_pair.base.path}",
            f"pair.rl.path={talking_pair.rl.path}",
            "tracker=none",
            "device=cpu",
            "threads=1",
            "traces.num_problems=16",
            "traces.base_samples=4",
            "traces.max_new_tokens=72",
        ),
    )
    outcome = project.run(*STAGES)
    assert outcome.code == 0, outcome.output
    return project


@pytest.fixture
def tiny_config(tmp_path: Path, tiny_pair: PairConfig) -> Config:
    """An experiment of seconds on the tiny pair, with results below the test's own folder."""
    pair = deepcopy(tiny_pair)  # A test may change its own.
    config = Config(pair=pair, behaviours=list(grammar.MOVES), runs=str(tmp_path / "runs"))
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
    config.rank.gate = False  # So short a training passes none.
    config.rank.trackers = config.rank.announcers = config.rank.candidates = 3
    config.rank.attribution_onsets = 8
    config.ablate.num_problems, config.ablate.max_new_tokens = 3, 16
    config.ablate.base_samples = 2
    config.ablate.num_latents, config.ablate.controls, config.ablate.bootstrap = 2, 1, 20
    return config
