"""Reading: `cache`'s own path to HDF5, synced, against bare passes and against transformer-lens."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from sae_reasoning.bench.material import language_model, random_sequences, write_store
from sae_reasoning.bench.sizes import Contender, Sizes
from sae_reasoning.config import ModelConfig
from sae_reasoning.edges.lm.load import LanguageModel, load
from sae_reasoning.edges.lm.read import pack, read_residuals

_REAL_LAYER = 18


def readers(sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Our reading, the bare pass and the peer's; amounts are tokens."""
    from transformer_lens.model_bridge import TransformerBridge

    lm = language_model(
        scratch / "reader", sizes.d_model, sizes.num_layers, device, max_positions=512
    )
    sequences = random_sequences(sizes, len(lm.tokenizer))
    batches = _batches(lm, sequences, sizes)
    num_tokens = sum(map(len, sequences))
    # Its present way in; HookedTransformer, the older one, is slower still.
    peer: Any = TransformerBridge.boot_transformers(str(scratch / "reader"), device=str(lm.device))
    hook = f"blocks.{sizes.layer}.hook_resid_post"

    @torch.no_grad()
    def peer_read(token_ids: Tensor, stop: int | None) -> Tensor:
        _, kept = peer.run_with_cache(
            token_ids, names_filter=lambda name: name == hook, return_type=None, stop_at_layer=stop
        )
        return kept[hook]

    def transformer_lens(stop: int | None = None) -> int:
        for token_ids in batches:
            peer_read(token_ids, stop)
        return num_tokens

    (ours,) = read_residuals(lm, [sequences[0]], [sizes.layer], sizes.token_budget)
    theirs = peer_read(torch.tensor([sequences[0]], device=lm.device), None)
    torch.testing.assert_close(theirs, ours.residuals[sizes.layer], rtol=1e-3, atol=1e-4)
    return {
        **_ours_and_bare(lm, sequences, batches, sizes, scratch),
        "transformer_lens": transformer_lens,
        "transformer_lens_stopped": lambda: transformer_lens(sizes.layer + 1),
    }


def real_readers(weights: Path, sizes: Sizes, scratch: Path, device: str) -> dict[str, Contender]:
    """Our reading of SmolLM2 to a layer of its last third, and the bare pass.

    Args:
        weights: Its GGUF file.
        sizes: Of the contest; a third as many sequences, since this model is larger.
        scratch: Folder for stores.
        device: It runs on.
    """
    sizes = replace(sizes, layer=_REAL_LAYER, num_sequences=max(sizes.num_sequences // 3, 2))
    lm = load(ModelConfig(path=str(weights.parent), gguf_file=weights.name), device)
    sequences = random_sequences(sizes, len(lm.tokenizer))
    return _ours_and_bare(lm, sequences, _batches(lm, sequences, sizes), sizes, scratch)


def _batches(
    lm: LanguageModel, sequences: Sequence[Sequence[int]], sizes: Sizes
) -> list[Int[Tensor, "_ _"]]:
    return [
        nn.utils.rnn.pad_sequence([torch.tensor(sequences[row]) for row in rows], True).to(
            lm.device
        )
        for rows in pack([len(s) for s in sequences], sizes.token_budget)
    ]


def _ours_and_bare(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    batches: Sequence[Int[Tensor, "_ _"]],
    sizes: Sizes,
    scratch: Path,
) -> dict[str, Contender]:
    """Reading with all that `cache` does, and the model that ends after the layer."""
    cut, num_tokens = _cut(lm, sizes.layer), sum(map(len, sequences))

    def cache() -> int:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            write_store(Path(folder), lm, sequences, sizes)
        return num_tokens

    @torch.no_grad()
    def forward() -> int:
        for token_ids in batches:
            cut.base_model(input_ids=token_ids, use_cache=False)
        return num_tokens

    return {"cache": cache, "forward": forward}


def _cut(lm: LanguageModel, layer: int) -> Any:
    """The model up to `layer`, without its last norm; nothing of it is ever computed in vain."""
    cut: Any = copy.deepcopy(lm.model)
    cut.model.layers = cut.model.layers[: layer + 1]
    cut.model.config.num_hidden_layers = layer + 1
    cut.model.norm = nn.Identity()
    return cut
