"""LoRA adapters that are trained on a frozen model (Hu et al. 2106.09685), by way of PEFT.

The adapter is a module of its own, so whatever trains it can reach nothing else, and a checkpoint
holds the adapter alone. While it learns, the rows of a batch are read one behind the other without
padding, and the head reads the positions that are learned from and no others: with a small model
and a large vocabulary it would take most of a step.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.load import LanguageModel, load

_CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoraShape:
    """Size of an adapter on every linear layer of the blocks that it adapts.

    Attributes:
        rank: Of each update.
        alpha: The update counts `alpha / rank` times.
        frozen_blocks: The first blocks, which it leaves as they are; they need no backward pass.
    """

    rank: int
    alpha: int
    frozen_blocks: int = 0


class LoraPart(nn.Module):
    """The trained weights of an adapter that sits in a model.

    A copy of it holds other values for the same places: `values_of` reads with them.
    """

    def __init__(self, weights: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = list(weights)
        self.weights = nn.ParameterList(list(weights.values()))

    @property
    def by_name(self) -> dict[str, Tensor]:
        """Weights under their names in the model."""
        return dict(zip(self.names, self.weights, strict=True))


@dataclass(frozen=True)
class LoraLearner:
    """A frozen model with an adapter in it that learns.

    Attributes:
        lm: The model, which writes with the adapter as it stands.
        part: What is trained.
        peft: PEFT's view of both, by which the adapter is saved.
    """

    lm: LanguageModel
    part: LoraPart
    peft: Any

    def reader(self, part: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        """Logits at some places of a batch, by the adapter's weights or by a copy of them."""
        assert isinstance(part, LoraPart)

        def read(
            token_ids: Int[Tensor, "batch token"], places: Bool[Tensor, "batch token"]
        ) -> Float[Tensor, "place vocab"]:
            packed = _pack(token_ids, places, self.lm.model.dtype)
            with self._values_of(part), _head_at(self.lm, packed.places):
                logits: Tensor = self.lm.model(
                    input_ids=packed.token_ids,
                    attention_mask=packed.mask,
                    position_ids=packed.positions,
                    use_cache=False,
                ).logits
            return logits[0]

        return read

    @contextmanager
    def _values_of(self, part: LoraPart) -> Iterator[None]:
        """Read with the values of a copy; those of the adapter itself are there anyway."""
        if part is self.part:
            yield
            return
        pairs = list(zip(self.part.weights, part.weights, strict=True))
        own = [live.data for live, _ in pairs]
        try:
            for live, copied in pairs:
                live.data = copied.data
            yield
        finally:
            for (live, _), data in zip(pairs, own, strict=True):
                live.data = data

    def save(self, folder: Path) -> None:
        """Save the adapter in PEFT's layout, in float16; whole or not at all."""
        partial = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        self.peft.save_pretrained(partial, save_embedding_layers=False)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name.replace(".default.", "."): value.detach().half().cpu().contiguous()
            for name, value in self.peft.state_dict().items()
            if ".lora_" in name
        }
        save_file(weights, partial / _WEIGHTS_FILE)
        described = json.loads((partial / _CONFIG_FILE).read_text(encoding="utf-8"))
        # Where the base lies here says nothing on another machine: the pair's config names it.
        described["base_model_name_or_path"] = None
        (partial / _CONFIG_FILE).write_text(
            json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        for name in (_WEIGHTS_FILE, _CONFIG_FILE):
            os.chmod(partial / name, 0o644)
            os.replace(partial / name, folder / name)
        shutil.rmtree(partial, ignore_errors=True)


class _Packed(NamedTuple):
    """Rows one behind the other in a single row, each up to its last place.

    Attributes:
        token_ids: Of all rows.
        places: In the single row, in the order in which they were in the batch.
        positions: Of each token in its own row.
        mask: Added to attention scores: a token sees its own row up to itself.
    """

    token_ids: Int[Tensor, "1 packed"]
    places: Bool[Tensor, "1 packed"]
    positions: Int[Tensor, "1 packed"]
    mask: Float[Tensor, "1 1 packed packed"]


def _pack(
    token_ids: Int[Tensor, "batch token"], places: Bool[Tensor, "batch token"], dtype: torch.dtype
) -> _Packed:
    """A batch without its padding, and without what stands behind the last place of each row."""
    index = torch.arange(token_ids.shape[1], device=token_ids.device)
    kept = index <= (places * index).amax(dim=1, keepdim=True)
    row, position = kept.nonzero(as_tuple=True)
    sees = (row[:, None] == row) & (position[:, None] >= position)
    mask = torch.zeros(sees.shape, dtype=dtype, device=token_ids.device)
    mask.masked_fill_(~sees, torch.finfo(dtype).min)
    return _Packed(token_ids[kept][None], places[kept][None], position[None], mask[None, None])


@contextmanager
def _head_at(lm: LanguageModel, places: Tensor) -> Iterator[None]:
    """Let the head read some places alone; what it makes of them comes as one row."""
    head = cast(nn.Module, lm.model.get_output_embeddings())

    def select(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][places.to(args[0].device)][None], *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def lora_learner(config: ModelConfig, shape: LoraShape, seed: int, device: str) -> LoraLearner:
    """A model with a new adapter, which changes nothing yet; or with one that is to learn on.

    Args:
        config: The model; where it names an adapter, that one goes on learning, whatever `shape`.
        shape: Of a new adapter.
        seed: Of a new adapter's weights.
        device: On which.

    Raises:
        ConfigError: PEFT isn't there, the adapter doesn't fit, or no block is left to adapt.
    """
    if find_spec("peft") is None:
        raise ConfigError("training adapters needs peft; pip install 'sae_reasoning[peft]'")
    from peft import LoraConfig, PeftModel, get_peft_model

    plain = replace(config, adapter="", adapter_revision=None)
    plain.option = config.option
    lm = load(plain, device)
    if config.adapter:
        peft: Any = PeftModel.from_pretrained(lm.model, config.adapter, is_trainable=True)
    else:
        layers = list(range(shape.frozen_blocks, lm.facts.num_layers))
        if not layers:
            raise ConfigError(
                f"frozen_blocks={shape.frozen_blocks} leaves none of the {lm.facts.num_layers} "
                f"blocks of {config.named} to adapt; lower it"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            peft = get_peft_model(
                lm.model,
                LoraConfig(
                    r=shape.rank,
                    lora_alpha=shape.alpha,
                    target_modules=_linear_names(lm),
                    layers_to_transform=layers,
                    task_type="CAUSAL_LM",
                ),
            )
    trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return LoraLearner(lm, LoraPart(trained), peft)


def _linear_names(lm: LanguageModel) -> list[str]:
    """Names of the linear layers within a block, the same in every block."""
    block = decoder_blocks(lm.model)[0]
    return sorted(
        {name.split(".")[-1] for name, one in block.named_modules() if isinstance(one, nn.Linear)}
    )
