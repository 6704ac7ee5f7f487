"""How many blocks a model has, known from its config file before anything heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sae_reasoning.config import ConfigError, ModelConfig, PairConfig
from sae_reasoning.edges.lm.depth import check_layers, num_blocks_here, too_shallow
from sae_reasoning.edges.lm.load import describe


def test_it_is_what_transformers_reads(tiny_pair: PairConfig, tiny_neox_pair: PairConfig) -> None:
    for model in (tiny_pair.base, tiny_neox_pair.rl):
        assert num_blocks_here(model) == describe(model).num_layers == 3


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"n_layer": 12}, 12),
        ({"text_config": {"num_hidden_layers": 18}, "num_hidden_layers": 2}, 18),
        ({"depth": 3}, None),
    ],
)
def test_architectures_name_it_differently(tmp_path: Path, config: dict, found: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert num_blocks_here(ModelConfig(path=str(tmp_path))) == found


def test_what_is_not_here_is_not_known(tmp_path: Path) -> None:
    assert num_blocks_here(ModelConfig(path=str(tmp_path))) is None
    assert num_blocks_here(ModelConfig(path="someone/unheard-of")) is None
    assert num_blocks_here(ModelConfig(path="/no/such/folder")) is None
    assert num_blocks_here(ModelConfig(path=str(tmp_path), gguf_file="model.gguf")) is None
    (tmp_path / "config.json").write_text("{")
    assert num_blocks_here(ModelConfig(path=str(tmp_path))) is None


def test_layers_are_counted_from_0() -> None:
    check_layers([0, 2], 3, "a model")
    with pytest.raises(ConfigError, match=r"layers=\[3\] out of range: a model has 3 blocks, 0..2"):
        check_layers([3], 3, "a model")


def test_layers_of_the_default_are_too_shallow_for_a_deep_model_only() -> None:
    assert too_shallow([1, 2], 4, "an organism") == ""
    assert too_shallow([2, 14], 28, "a model") == ""
    said = too_shallow([1, 2], 28, "a model")
    assert said.startswith("layers=[1, 2] all lie in the first quarter of a model's 28 blocks")
    assert said.endswith("set layers=[9,14,19]")


def test_it_is_light() -> None:
    program = (
        "import sys, sae_reasoning.edges.lm.depth, sae_reasoning.edges.hub\n"
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n"
