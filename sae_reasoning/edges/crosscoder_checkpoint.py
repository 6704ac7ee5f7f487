"""Crosscoders: one code for both readers of a token, and a decoder for each.

A crosscoder whose encoders are summed is an SAE of the concatenated residuals [base; rl], so it is
trained, saved and read as one, in sae-lens's two files:

    cfg.json                      d_in = 2 d_model; its metadata has
                                  `readers`: whose residuals are concatenated, in this order
                                  `reader_scales`: one number a reader, see below
    sae_weights.safetensors       W_enc [2 d_model, d_sae], b_enc, W_dec [d_sae, 2 d_model], b_dec
                                  [2 d_model]; the first d_model are the first reader's

1. Each reader's residuals are multiplied by its scale, which brings both to the same mean norm (the
   mean of the two, so that a pair of like norms keeps its own); else the loss would serve the
   louder reader.
2. Training is that of any SAE (`sae_training`), with TopK or BatchTopK. The k most active latents
   (of a token, or k times the tokens of a batch) are chosen by activation times the norm of the
   latent's joint decoder row in scaled units, `f_j sqrt(|d_base|^2 + |d_rl|^2)`: the length of what
   the latent writes into both readers together, and so what it may take off the squared error.
   2504.02922 choose by `f_j (|d_base| + |d_rl|)`, which at equal length prefers a
   latent that is shared over one of a single reader, by up to sqrt(2).
3. The scales are folded into the weights: files and code speak raw residuals.

sae-lens's own `SAE.load_from_disk(folder).encode(torch.cat([base, rl], -1))` gives the latents, in
units in which joint decoder rows have norm 1 after scaling; here they are in units in which joint
rows have norm 1 in raw residuals, as a `Dictionary`'s are.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.sae_checkpoint import Dictionary, Sparse, load_any


@dataclass(frozen=True)
class Crosscoder:
    """A trained crosscoder that reads raw residuals.

    Attributes:
        joint: The SAE of concatenated residuals; its decoder rows have norm 1.
        readers: Whose residuals are concatenated, in order.
        scales: Of each reader, brings it to the mean norm of all.
    """

    joint: Dictionary
    readers: tuple[str, ...]
    scales: tuple[float, ...]

    @property
    def name(self) -> str:
        """`<readers>/layer_<layer>`, the last two parts of its folder."""
        return self.joint.name

    @property
    def fingerprint(self) -> str:
        """Changes with config or weights; empty while it hasn't been saved."""
        return self.joint.fingerprint

    @property
    def d_model(self) -> int:
        """Width of one reader's residual stream."""
        return self.joint.d_in // len(self.readers)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.joint.device

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.joint.d_sae

    @cached_property
    def decoders(self) -> Float[Tensor, "reader d_sae d_model"]:
        """What each latent writes into each reader, in raw units."""
        return self.joint.W_dec.unflatten(1, (len(self.readers), -1)).transpose(0, 1)

    @cached_property
    def biases(self) -> Float[Tensor, "reader d_model"]:
        """What is reconstructed of each reader when no latent is active."""
        return self.joint.b_dec.unflatten(0, (len(self.readers), -1))

    @cached_property
    def norms(self) -> Float[Tensor, "reader d_sae"]:
        """Norms of the decoder rows in scaled units, in which the readers can be compared."""
        scales = self.biases.new_tensor(self.scales)
        return self.decoders.norm(dim=2) * scales[:, None]

    @cached_property
    def norm_shares(self) -> Float[Tensor, " d_sae"]:
        """`|d_last| / (|d_first| + |d_last|)`, in scaled units: 1 is RL's alone, 0 the base's."""
        return self.norms[-1] / self.norms.sum(0)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "reader n d_model"]) -> Sparse:
        """The latents that the readers' residuals of the same tokens make active."""
        return self.joint.encode_sparse(x.transpose(0, 1).flatten(1))

    @torch.no_grad()
    def decode_sparse(self, latents: Sparse) -> Float[Tensor, "reader n d_model"]:
        """Reconstruction of each reader's residuals."""
        joint = self.joint.decode_sparse(latents)
        return joint.unflatten(1, (len(self.readers), -1)).transpose(0, 1)

    def reconstruct(
        self, reader: str, own: Float[Tensor, "n d_model"], *others: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "n d_model"]:
        """One reader's residuals, as the code of all readers has them.

        Args:
            reader: Whose.
            own: Its residuals.
            others: The other readers', in their order.
        """
        place = self.readers.index(reader)
        parts = [*others[:place], own, *others[place:]]
        x = torch.stack([part.to(self.device, torch.float32) for part in parts])
        return self.decode_sparse(self.encode_sparse(x))[place]

    def save(self, folder: Path) -> None:
        """Write sae-lens's two files.

        Raises:
            ConfigError: The disk refuses.
        """
        self.joint.save(folder)


class Half:
    """A crosscoder as one of its readers has it: that reader's decoder, and the code of all.

    The code can't be had from one reader: its residuals come first in whatever is read, then the
    others', in their order. So an ablation through it removes exactly what the crosscoder says that
    the latent writes into this reader, `f d_reader`.

    Attributes:
        d_sae: Latents.
        W_dec: What each latent writes into the reader; norms differ, those of joint rows are 1.
        b_dec: What is reconstructed of the reader when no latent is active.
    """

    def __init__(self, crosscoder: Crosscoder, reader: str) -> None:
        self._crosscoder, self._place = crosscoder, crosscoder.readers.index(reader)
        self.d_sae = crosscoder.d_sae
        self.W_dec: Float[Tensor, "d_sae d_model"] = crosscoder.decoders[self._place].contiguous()
        self.b_dec: Float[Tensor, " d_model"] = crosscoder.biases[self._place]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._crosscoder.device

    @torch.no_grad()
    def encode(
        self, own: Float[Tensor, "n d_model"], *others: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "n d_sae"]:
        """Latents of the same tokens as all readers read them."""
        return self._crosscoder.joint.encode(self._joined(own, *others))

    @torch.no_grad()
    def encode_sparse(
        self, own: Float[Tensor, "n d_model"], *others: Float[Tensor, "n d_model"]
    ) -> Sparse:
        """The same latents, only the active ones."""
        return self._crosscoder.joint.encode_sparse(self._joined(own, *others))

    def _joined(self, own: Tensor, *others: Tensor) -> Tensor:
        return torch.cat([*others[: self._place], own, *others[self._place :]], dim=1)


def scales_of(x: Float[Tensor, "reader n d_model"]) -> tuple[float, ...]:
    """What brings each reader's mean norm on some tokens to the mean of all readers'."""
    norms = x.norm(dim=2).mean(1)
    return tuple((norms.mean() / norms).tolist())


def concatenate(
    x: Float[Tensor, "reader n d_model"], scales: tuple[float, ...]
) -> Float[Tensor, "n d_in"]:
    """The scaled residuals on which a crosscoder is trained."""
    return (x * x.new_tensor(scales)[:, None, None]).transpose(0, 1).flatten(1)


def crosscoder_of(
    joint: Dictionary, readers: tuple[str, ...], scales: tuple[float, ...]
) -> Crosscoder:
    """The crosscoder that an SAE of scaled, concatenated residuals is.

    Args:
        joint: The SAE; the scales are folded into its weights, in place.
        readers: Whose residuals were concatenated, in order.
        scales: They were multiplied by.
    """
    each = torch.tensor(scales).repeat_interleave(joint.d_in // len(readers))
    return Crosscoder(joint.fold_input_scale(each), readers, scales)


def load_crosscoder(folder: Path, device: torch.device | str = "cpu") -> Crosscoder:
    """Read a crosscoder in sae-lens's format.

    Raises:
        MissingInput: There is none.
        BrokenArtifact: It is cut short, or an SAE of one reader.
    """
    joint = load_any(folder, device)
    readers, scales = (joint.metadata.get(key) or () for key in ("readers", "reader_scales"))
    if not scales or len(readers) != len(scales) or joint.d_in % len(scales):
        raise BrokenArtifact(
            f"{folder} is no crosscoder (readers={list(readers)}, reader_scales={list(scales)}, "
            f"d_in={joint.d_in}); delete it, run `make train` with train.readers=crosscoder"
        )
    return Crosscoder(joint, tuple(readers), tuple(scales))
