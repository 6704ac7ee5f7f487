"""The grid's making, small: its models load like any, and a kill costs nothing."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from projects import tiny_experiment

from sae_reasoning.compose import compose
from sae_reasoning.config import Config, ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.organisms import organisms, to_make
from sae_reasoning.organisms.cells import PAIRS, absent_behaviour, grid
from sae_reasoning.tasks.search import grammar

BASE, RL = "search_base_llama", "search_rl_llama"


def config_in(folder: Path, pair: PairConfig) -> Config:
    """A base and what RL makes of it, in seconds."""
    config = tiny_experiment(pair, folder)
    own = config.organism
    own.folder = str(folder / "organisms")
    own.d_model, own.num_layers, own.num_heads, own.d_mlp = 32, 2, 2, 48
    own.pretrain.steps, own.pretrain.batch_size = 260, 8
    own.rl.steps, own.rl.prompts, own.rl.samples = 11, 2, 2
    own.sft.steps, own.sft.batch_size = 20, 4
    own.measure_problems, own.compelled_problems, own.forced_starts = 12, 6, 4
    own.keep_every = 5
    own.only = [RL]
    own.pass_problems, own.pass_samples = 2, 4
    return config


@pytest.fixture
def cfg(tiny_pair: PairConfig, tmp_path: Path) -> Config:
    return config_in(tmp_path, tiny_pair)


@pytest.fixture(scope="module")
def made(tiny_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """With both models made; nobody changes them."""
    config = config_in(tmp_path_factory.mktemp("made"), tiny_pair)
    run(config, NullTracker())
    return config


def weights(cfg: Config) -> list[str]:
    return [
        hashlib.sha256(
            (Path(cfg.organism.folder) / name / "model.safetensors").read_bytes()
        ).hexdigest()
        for name in (BASE, RL)
    ]


class Killed(NullTracker):
    """Interrupts a training the first time it reports a step of the model named."""

    def __init__(self, name: str, at: int) -> None:
        self._name, self._at = name, at

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Raise where the kill falls."""
        if step is not None and step >= self._at and any(k.startswith(self._name) for k in metrics):
            raise KeyboardInterrupt


def run(cfg: Config, tracker: NullTracker) -> str:
    out = io.StringIO()
    organisms(cfg, tracker=tracker, console=Console(out, verbose=True))
    return out.getvalue()


@pytest.mark.e2e
def test_a_killed_training_resumes_to_the_same_weights(cfg: Config, made: Config) -> None:
    for name, at in ((BASE, 250), (RL, 11)):
        with pytest.raises(KeyboardInterrupt):
            run(cfg, Killed(name, at))
    said = run(cfg, NullTracker())
    assert f"{BASE}" in said and "step 1/11" not in said
    assert weights(cfg) == weights(made)


def test_organisms_load_like_any_model_and_carry_their_figures(made: Config) -> None:
    for name in (BASE, RL):
        folder = Path(made.organism.folder) / name
        lm = load(ModelConfig(str(folder)), "cpu")
        assert (lm.facts.num_layers, lm.facts.d_model) == (2, 32)
        card = (folder / "README.md").read_text()
        assert "right answers, direct answer forced" in card
        assert ("pass@k" in card) == (name == BASE)
        assert not (folder / "training.safetensors").exists()
    said = run(made, NullTracker())
    assert "up to date" in said
    (command,) = [line for line in said.splitlines() if line.startswith("  next: ")]
    assert f"pair.rl.path={made.organism.folder}/{RL}" in command
    assert "organism.only" not in command
    base_alone = replace(made, organism=replace(made.organism, only=[BASE]))
    assert "next:" not in run(base_alone, NullTracker())


@pytest.mark.slow
def test_models_of_every_kind_are_made_with_their_truth(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained with and without a behaviour, tuned, and reinforced on a random reward."""
    monkeypatch.setattr(
        "sae_reasoning.trainings.organism_writing._MAX_NEW_TOKENS", 60
    )  # They never end.
    own = cfg.organism
    own.family, own.only = "neox", ["search_random_neox", "search_sft_lacking_neox"]
    own.measure_problems, own.compelled_problems, own.forced_starts = 4, 2, 2
    made = {"search_base_neox", "search_base_lacking_neox", *own.only}
    check_grid(cfg, made)


@pytest.mark.e2e
@pytest.mark.parametrize("family", ["llama", "neox"])
def test_the_whole_grid_is_made_with_its_truth(cfg: Config, family: str) -> None:
    cfg.organism.family, cfg.organism.only = family, []
    models = {model.name: model for model in grid(family, 0)}
    check_grid(cfg, set(models))
    for base, second in PAIRS.values():
        assert models[f"search_{second}_{family}"].parent in {
            f"search_{base}_{family}",
            f"search_rl_{family}",
        }


def check_grid(cfg: Config, names: set[str]) -> None:
    """Make what the config asks for; these models, and no others, are there as they should be."""
    family = cfg.organism.family
    cfg.organism.pretrain.steps, cfg.organism.sft.steps, cfg.organism.rl.steps = 4, 2, 1
    run(cfg, NullTracker())
    assert {path.name for path in Path(cfg.organism.folder).iterdir()} == names
    for model in grid(family, 0):
        if model.name in names:
            folder = Path(cfg.organism.folder) / model.name
            lm = load(ModelConfig(str(folder)), "cpu")
            own = {"neox": "gptneox"}.get(family, family)
            assert type(lm.model).__name__.lower().startswith(own)
            assert (folder / "truth.json").exists() == bool(model.parent)
            assert f"organism.only=[{model.name}]" in (folder / "README.md").read_text()


def test_a_model_that_is_not_in_the_grid_is_refused(cfg: Config) -> None:
    cfg.organism.only = ["search_rl_gpt"]
    with pytest.raises(
        ConfigError, match=r"organism\.only names search_rl_gpt.*choose of search_ba"
    ):
        run(cfg, NullTracker())


def test_seeds_have_folders_of_their_own_and_rotate_the_absent_behaviour(cfg: Config) -> None:
    assert cfg.organism.folder_of(0) != cfg.organism.folder_of(1) != cfg.organism.folder_of(2)
    assert {absent_behaviour(0), absent_behaviour(1)} == {
        grammar.BACKTRACKING,
        grammar.VERIFICATION,
    }


@pytest.mark.parametrize("family", ["llama", "neox"])
def test_shipped_models_are_up_to_date(family: str) -> None:
    cfg = compose([f"organism={family}"])
    shipped = {
        model.name for model in grid(family, 0) if (cfg.organism.folder_of(0) / model.name).exists()
    }
    assert len(shipped) >= 6
    assert not shipped & set(to_make(cfg)[0])
