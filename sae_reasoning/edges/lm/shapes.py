"""What a model's size is, without its weights and without a network.

From its config where that is on this machine, else from a table of published shapes.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sae_reasoning.config import ConfigError, ModelConfig, PlanConfig
from sae_reasoning.edges.lm.gguf import unpacked
from sae_reasoning.edges.lm.identity import require_folder
from sae_reasoning.edges.lm.limits import context_of
from sae_reasoning.edges.lm.load import decoder_blocks


@dataclass(frozen=True)
class ModelSize:
    """Figures that costs follow from.

    Attributes:
        parameters: Of the whole model, tied ones once.
        block_weights: Entries of one decoder block's matrices.
        head_weights: Entries of the unembedding.
        d_model: Width of the residual stream.
        attention: Width of all heads together.
        cached: Values that a token leaves in the key-value cache, all blocks together.
        num_layers: Decoder blocks.
        source: Where this is from.
        context: Tokens of the longest text; None where nobody says.
    """

    parameters: int
    block_weights: int
    head_weights: int
    d_model: int
    attention: int
    cached: int
    num_layers: int
    source: str
    context: int | None = None

    def read_flops(self, context: float, layers: int, head: bool = False) -> float:
        """FLOPs a token of a forward pass through some blocks, for texts of `context` tokens.

        Attention looks back at half of the text on average.
        """
        blocks = layers * (2 * self.block_weights + 2 * context * self.attention)
        return blocks + (2 * self.head_weights if head else 0)


def _shape(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


_HALF = _shape("qwen2", 896, 4864, 24, 14, 2, 151936, True)
_ONE_AND_A_HALF = _shape("qwen2", 1536, 8960, 28, 12, 2, 151936, True)
_UNTIED = _ONE_AND_A_HALF | {"tie_word_embeddings": False}
_SEVEN = _shape("qwen2", 3584, 18944, 28, 28, 4, 152064, False)
_LLAMA = _shape("llama", 4096, 14336, 32, 32, 8, 128256, False)
_OLMO = _shape("olmo3", 4096, 11008, 32, 32, 32, 100278, False)
SHAPES = {
    "Qwen/Qwen2.5-0.5B": _HALF,
    "Open-Reasoner-Zero/Open-Reasoner-Zero-0.5B": _HALF,
    "Qwen/Qwen2.5-1.5B": _ONE_AND_A_HALF,
    "Qwen/Qwen2.5-Math-1.5B": _ONE_AND_A_HALF,
    "Open-Reasoner-Zero/Open-Reasoner-Zero-1.5B": _ONE_AND_A_HALF,
    "hkust-nlp/Qwen-2.5-1.5B-SimpleRL-Zoo": _ONE_AND_A_HALF,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _UNTIED,
    "nvidia/Nemotron-Research-Reasoning-Qwen-1.5B": _UNTIED,
    "Qwen/Qwen2.5-7B": _SEVEN,
    "Qwen/Qwen2.5-Math-7B": _SEVEN,
    "Open-Reasoner-Zero/Open-Reasoner-Zero-7B": _SEVEN,
    "hkust-nlp/Qwen-2.5-Math-7B-SimpleRL-Zoo": _SEVEN,
    "sail/Qwen2.5-Math-7B-Oat-Zero": _SEVEN,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _SEVEN,
    "meta-llama/Llama-3.1-8B": _LLAMA,
    "hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo": _LLAMA,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _LLAMA,
    "allenai/Olmo-3-1025-7B": _OLMO,
    "allenai/Olmo-3-7B-RL-Zero-Math": _OLMO,
}
"""Published shapes of the models that conf/pair names, for plans without a network."""

CONTEXTS = {
    "Qwen/Qwen2.5-Math-1.5B": 4096,
    "Qwen/Qwen2.5-Math-7B": 4096,
    "hkust-nlp/Qwen-2.5-Math-7B-SimpleRL-Zoo": 4096,
    "sail/Qwen2.5-Math-7B-Oat-Zero": 4096,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 131072,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 131072,
    "meta-llama/Llama-3.1-8B": 131072,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 131072,
}
"""Published contexts of those of them that are known here."""


def size_of(config: ModelConfig, plan: PlanConfig) -> ModelSize:
    """Size of a model; nothing is fetched. A local GGUF file that is new here is unpacked.

    Raises:
        ConfigError: It's a folder that isn't there, or nothing here knows it.
    """
    folder = Path(config.path)
    if not folder.is_dir() and config.path in SHAPES:
        size = _count(AutoConfig.for_model(**SHAPES[config.path]), "table")
        return replace(size, context=CONTEXTS.get(config.path))
    if plan.parameters:
        layers = max(plan.num_layers, 1)
        block, width = int(plan.parameters / layers), plan.d_model
        if not width or not plan.num_layers:
            raise ConfigError(
                f"plan.parameters={plan.parameters:g} needs plan.d_model and plan.num_layers; set "
                "all three"
            )
        return ModelSize(
            int(plan.parameters), block, 0, width, width, 2 * width * layers, layers, "options"
        )
    require_folder(config)
    path = unpacked(config) if config.gguf_file and folder.is_dir() else config.path
    try:
        found = AutoConfig.from_pretrained(path, revision=config.revision, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{config.named} isn't on this machine nor in the table of shapes; set "
            "plan.parameters=…, plan.d_model=… and plan.num_layers=…"
        ) from error
    return _count(found.get_text_config(), "config")


def _count(config: Any, source: str) -> ModelSize:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = decoder_blocks(model)
    heads = config.num_attention_heads
    per_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        block_weights=sum(p.numel() for p in blocks[0].parameters() if p.ndim > 1),
        head_weights=model.get_output_embeddings().weight.numel(),
        d_model=config.hidden_size,
        attention=heads * per_head,
        cached=2 * kv * per_head * len(blocks),
        num_layers=len(blocks),
        source=source,
        context=context_of(config),
    )
