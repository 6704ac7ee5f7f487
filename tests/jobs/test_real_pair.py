"""Adapters on a real model, small: the whole command on a random one, and a kill costs nothing."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from byte_level import byte_level_tokenizer
from projects import tiny_experiment
from tiny_models import new_qwen

from sae_reasoning.config import Config, ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.create import save_model
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.lm.lora import LoraShape, lora_learner
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.real_pair import real_pair
from sae_reasoning.organisms.countdown import ADAPTED, HAVING, LACKING, REINFORCED, TAUGHT

WEIGHTS = "adapter_model.safetensors"


def save_qwen(folder: Path) -> None:
    """A random Qwen2 of three blocks with byte-level pairs."""
    tokenizer = byte_level_tokenizer()
    save_model(new_qwen(tokenizer, 32, 0), tokenizer, folder, torch.float32)


def config_in(folder: Path, model: Path) -> Config:
    alone = PairConfig(name="qwen", base=ModelConfig(path=""), rl=ModelConfig(path=str(model)))
    config = tiny_experiment(alone, folder)
    own = config.real_pair
    own.folder = str(folder / "adapters")
    own.rank, own.alpha, own.frozen_blocks = 2, 4, 1
    for training in (own.base, own.sft):
        training.steps, training.batch_size, training.checkpoint_every = 4, 4, 2
    own.rl.steps, own.rl.prompts, own.rl.samples = 2, 2, 2
    own.measure_problems, own.compelled_problems, own.forced_starts = 6, 3, 3
    own.max_new_tokens = 24
    return config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen") / "tiny"
    save_qwen(folder)
    return folder


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """With every adapter made; nobody changes them."""
    config = config_in(tmp_path_factory.mktemp("made"), model)
    run(config, NullTracker())
    return config


class Killed(NullTracker):
    """Interrupts a training the first time it reports a step of the adapter named."""

    def __init__(self, name: str, at: int) -> None:
        self._name, self._at = name, at

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Raise where the kill falls."""
        if step is not None and step >= self._at and any(k.startswith(self._name) for k in metrics):
            raise KeyboardInterrupt


def run(cfg: Config, tracker: NullTracker) -> str:
    out = io.StringIO()
    real_pair(cfg, tracker=tracker, console=Console(out, verbose=True))
    return out.getvalue()


def digest(cfg: Config, name: str) -> str:
    content = (Path(cfg.real_pair.folder) / name / WEIGHTS).read_bytes()
    return hashlib.sha256(content).hexdigest()


@pytest.mark.e2e
def test_a_killed_training_resumes_to_the_same_adapter(
    made: Config, model: Path, tmp_path: Path
) -> None:
    cfg = config_in(tmp_path, model)
    cfg.real_pair.only = ["sft_lacking", "rl"]
    for name, at in ((f"{LACKING}/", 3), (TAUGHT, 1), (REINFORCED, 1)):
        with pytest.raises(KeyboardInterrupt):
            run(cfg, Killed(name, at))
    said = run(cfg, NullTracker())
    assert f"{LACKING}: step" not in said  # Made before, so nothing is trained again.
    assert f"{REINFORCED}: step 2/2" in said and f"{REINFORCED}: step 1/2" not in said
    for name in (LACKING, TAUGHT, HAVING, REINFORCED):
        assert digest(cfg, name) == digest(made, name)


def test_each_adapter_changes_the_model_and_has_a_card_of_its_figures(
    made: Config, model: Path
) -> None:
    folder = Path(made.real_pair.folder)
    assert {path.name for path in folder.iterdir()} == {one.name for one in ADAPTED}
    plain = load(ModelConfig(path=str(model)), "cpu")
    ids = torch.arange(5, 15)[None]
    before = plain.model(input_ids=ids).logits
    for one in ADAPTED:
        own = load(ModelConfig(path=str(model), adapter=str(folder / one.name)), "cpu")
        assert not torch.equal(own.model(input_ids=ids).logits, before)
        card = (folder / one.name / "README.md").read_text(encoding="utf-8")
        assert one.title in card and "right answers, thinking forced" in card
        described = json.loads((folder / one.name / "adapter_config.json").read_text("utf-8"))
        assert described["base_model_name_or_path"] is None


def test_what_is_up_to_date_is_made_once(made: Config) -> None:
    said = run(made, NullTracker())
    assert ": step " not in said and said.count("is up to date") == len(ADAPTED)


def test_measuring_more_trains_nothing_again(made: Config, model: Path, tmp_path: Path) -> None:
    cfg = config_in(tmp_path, model)
    cfg.real_pair.only = ["base"]
    run(cfg, NullTracker())
    cfg.real_pair.measure_problems = 8
    said = run(cfg, NullTracker())
    assert f"measuring {HAVING}" in said and ": step " not in said
    assert digest(cfg, HAVING) == digest(made, HAVING)
    card = (Path(cfg.real_pair.folder) / HAVING / "README.md").read_text(encoding="utf-8")
    assert "Measured on 8 problems" in card


def test_the_cost_is_told_before_the_first_step(model: Path, tmp_path: Path) -> None:
    cfg = config_in(tmp_path, model)
    cfg.real_pair.only = ["base"]
    said = run(cfg, NullTracker())
    assert said.index("tokens/s") < said.index(f"{HAVING}: step 1/4")


def test_a_new_adapter_changes_nothing_and_leaves_frozen_blocks_alone(model: Path) -> None:
    config = ModelConfig(path=str(model))
    plain = load(config, "cpu").model
    learner = lora_learner(config, LoraShape(2, 4, frozen_blocks=1), 0, "cpu")
    ids = torch.arange(5, 35).view(3, 10)
    places = torch.zeros_like(ids, dtype=torch.bool)
    places[0, 2:9:2] = places[1, 1:4] = places[2, 7] = True  # Rows are packed up to the last.
    logits = learner.reader(learner.part)(ids, places)
    assert torch.allclose(logits, plain(input_ids=ids).logits[places], atol=1e-5)
    assert not [name for name in learner.part.names if ".layers.0." in name]
    with pytest.raises(ConfigError, match="frozen_blocks=3 leaves none of the 3"):
        lora_learner(config, LoraShape(2, 4, frozen_blocks=3), 0, "cpu")


def test_a_model_that_has_an_adapter_is_refused(made: Config, model: Path, tmp_path: Path) -> None:
    cfg = config_in(tmp_path, model)
    cfg.pair.rl.adapter = str(Path(made.real_pair.folder) / HAVING)
    with pytest.raises(ConfigError, match="has an adapter already"):
        run(cfg, NullTracker())
