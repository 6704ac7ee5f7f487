"""Small trained parts that are attached to a frozen model, and how it reads with them.

An attachment is a module of its own, so that whatever trains it can reach nothing else: the model's
weights need no gradient and stand in no optimiser.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sae_reasoning.edges.lm.anatomy import decoder_blocks
from sae_reasoning.edges.lm.load import LanguageModel


@runtime_checkable
class Attachment(Protocol):
    """A trained part; 0 is none."""

    values: nn.Parameter

    def prompt(self, token_ids: Sequence[int]) -> list[int]:
        """A prompt as the model is given it with this attached."""

    def attach(self) -> ExitStack:
        """Attach it until the stack is closed."""


class ControlToken(nn.Module):
    """The last token of a prompt as a token of its own: its embedding plus a trained vector.

    One control token, after Thinkless (Fang et al. 2505.13379, §3.1), which decides between
    thinking and not. A marked token's id lies one vocabulary above the token's own.
    """

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self._embed = [lm.model.get_input_embeddings()]  # In a list: no submodule of this one.
        self._vocab_size = cast(Tensor, self._embed[0].weight).shape[0]
        self.values = nn.Parameter(torch.zeros(lm.facts.d_model, device=lm.device))

    def prompt(self, token_ids: Sequence[int]) -> list[int]:
        """The prompt with its last token marked."""
        return [*token_ids[:-1], token_ids[-1] + self._vocab_size]

    def attach(self) -> ExitStack:
        """Read marked tokens as their own plus the vector."""
        marked: list[Int[Tensor, "batch token"]] = []

        def unmark(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            is_marked = args[0] >= self._vocab_size
            marked.append(is_marked)
            return (args[0] - self._vocab_size * is_marked,)

        def add(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            return output + marked.pop().to(output)[..., None] * self.values.to(output)

        stack = ExitStack()
        stack.callback(self._embed[0].register_forward_pre_hook(unmark).remove)
        stack.callback(self._embed[0].register_forward_hook(add).remove)
        return stack

    def __deepcopy__(self, _memo: object) -> "ControlToken":
        twin = object.__new__(ControlToken)
        nn.Module.__init__(twin)
        twin._embed, twin._vocab_size = self._embed, self._vocab_size
        twin.values = nn.Parameter(self.values.detach().clone())
        return twin


class LayerBiases(nn.Module):
    """A vector a layer, added to the residual stream after each block at every position.

    What RL trains, reduced to biases: Sinii et al. 2509.06608.
    """

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self._blocks = [decoder_blocks(lm.model)]
        self.values = nn.Parameter(
            torch.zeros(lm.facts.num_layers, lm.facts.d_model, device=lm.device)
        )

    def prompt(self, token_ids: Sequence[int]) -> list[int]:
        """The prompt as it is."""
        return list(token_ids)

    def attach(self) -> ExitStack:
        """Add each layer's vector after its block."""
        stack = ExitStack()
        for block, vector in zip(self._blocks[0], self.values, strict=True):

            def add(
                _module: object, _args: object, output: object, vector: Tensor = vector
            ) -> object:
                if isinstance(output, tuple):
                    return (output[0] + vector.to(output[0]), *output[1:])
                assert isinstance(output, Tensor)
                return output + vector.to(output)

            stack.callback(block.register_forward_hook(add).remove)
        return stack

    def __deepcopy__(self, _memo: object) -> "LayerBiases":
        twin = object.__new__(LayerBiases)
        nn.Module.__init__(twin)
        twin._blocks = self._blocks
        twin.values = nn.Parameter(self.values.detach().clone())
        return twin


def attached_reader(
    lm: LanguageModel,
) -> Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]]:
    """What makes readers of an attachment: logits of the frozen model with it attached."""

    def reader(part: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        def read(
            token_ids: Int[Tensor, "batch token"], places: Bool[Tensor, "batch token"]
        ) -> Float[Tensor, "place vocab"]:
            with cast(Attachment, part).attach():
                logits: Tensor = lm.model(input_ids=token_ids, use_cache=False).logits
            return logits[places]

        return read

    return reader


def random_twin_of(part: Attachment, seed: int) -> Attachment:
    """The same kind of part with random values, every vector as long as the trained one."""
    generator = torch.Generator().manual_seed(seed)
    values = part.values.detach().cpu()
    drawn = torch.randn(values.shape, generator=generator)
    twin = copy.deepcopy(part)
    set_values(twin, drawn / drawn.norm(dim=-1, keepdim=True) * values.norm(dim=-1, keepdim=True))
    return twin


def save_attachment(part: Attachment, path: Path) -> None:
    """Save the trained values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"values": part.values.detach().float().cpu().contiguous()}, path)


def set_values(part: Attachment, values: Float[Tensor, "..."]) -> None:
    """Give an attachment other values."""
    with torch.no_grad():
        part.values.copy_(values)


def load_values(path: Path) -> Float[Tensor, "..."]:
    """Values that were saved."""
    return load_file(path)["values"]
