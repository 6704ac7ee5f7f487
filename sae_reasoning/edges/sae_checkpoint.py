"""Sparse autoencoders of sae-lens: built for training, saved and read back in its own format.

The only file that imports sae-lens, and only inside functions: the import costs seconds.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from sae_reasoning.config import ConfigError, SaeConfig
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    MissingInput,
    fingerprint,
    fingerprint_files,
    read_json,
)
from sae_reasoning.edges.sparse_topk import autoencode, top_k
from sae_reasoning.records import Shortlist

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
_MATRYOSHKA_LEVELS = 4
BEFORE_BLOCK = "hook_resid_pre"


class Sparse(NamedTuple):
    """Active latents of each token; a row with fewer than k is padded with value 0."""

    values: Float[Tensor, "n k"]
    latents: Int[Tensor, "n k"]

    def numpy(self) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
        """Both as arrays."""
        return self.values.cpu().numpy(), self.latents.cpu().numpy()


class Dictionary:
    """A trained SAE that reads raw residuals.

    Latents are in units of the residual stream: decoder rows have norm 1, and the normalisation
    used in training is folded in.

    Attributes:
        d_in: Width of the residual stream.
        d_sae: Latents.
        layer: Decoder block whose output it was trained on; -1 where its config doesn't say.
        name: `<readers>/layer_<layer>`, the last two parts of its folder.
        fingerprint: Changes with config or weights; empty while it hasn't been saved.
        W_dec: Directions of the latents.
        b_dec: What is reconstructed when no latent is active.
    """

    def __init__(self, sae: Any, *, name: str = "", fingerprint: str = "") -> None:
        # W_dec rows with other norms than 1 (a released SAE's) are folded into the latents here.
        norms = sae.W_dec.detach().norm(dim=1).clamp(min=1e-8)
        self._norms = None if torch.allclose(norms, torch.ones_like(norms), atol=1e-5) else norms
        self._sae = sae.requires_grad_(False)
        self.name, self.fingerprint = name, fingerprint
        self.d_in, self.d_sae = sae.cfg.d_in, sae.cfg.d_sae
        self.layer: int = _layer(sae.cfg.metadata)
        self.W_dec: Float[Tensor, "d_sae d_in"] = sae.W_dec.detach()
        if self._norms is not None:
            self.W_dec = self.W_dec / self._norms[:, None]
        self.b_dec: Float[Tensor, " d_in"] = sae.b_dec.detach()

    @property
    def architecture(self) -> str:
        """sae-lens's name of what is loaded; a BatchTopK or Matryoshka SAE is read as JumpReLU."""
        return self._sae.cfg.architecture()

    @property
    def metadata(self) -> dict[str, Any]:
        """What its `cfg.json` says of where it belongs."""
        return dict(self._sae.cfg.metadata.to_dict())

    def belongs_to(self, layer: int) -> None:
        """Tell it whose output it reads; its config may not know."""
        self._sae.cfg.metadata.layer = self.layer = layer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    def to(self, device: torch.device | str) -> Self:
        """This dictionary with its weights on `device`."""
        return type(self)(self._sae.to(device), name=self.name, fingerprint=self.fingerprint)

    @torch.no_grad()
    def fold_input_scale(self, scale: Float[Tensor, " d_in"]) -> Self:
        """The dictionary of raw residuals that one of residuals times `scale` is.

        The weights are changed in place: this one is spent.
        """
        scale = scale.to(self.device)
        self._sae.W_enc.mul_(scale[:, None])
        self._sae.W_dec.div_(scale)
        self._sae.b_dec.div_(scale)
        return type(self)(self._sae)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_sae"]:
        """Latents of raw residuals, as sae-lens computes them."""
        latents = self._sae.encode(x.float())
        return latents if self._norms is None else latents * self._norms

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_in"]) -> Sparse:
        """The same latents, only the active ones; k is the most active on any token of `x`."""
        sae = self._sae
        if self.architecture == "topk" and self._norms is None:
            centred = x.float() - sae.b_dec * sae.cfg.apply_b_dec_to_input
            best = top_k(torch.addmm(sae.b_enc, centred, sae.W_enc), sae.cfg.k)
            return Sparse(best.values.relu_(), best.latents)
        latents = self.encode(x)
        k = max(int((latents > 0).sum(1).max()), 1) if len(x) else 1
        return Sparse(*top_k(latents, k))

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n d_sae"]) -> Float[Tensor, "n d_in"]:
        """Reconstruction of raw residuals."""
        return torch.addmm(self.b_dec, latents, self.W_dec)

    @torch.no_grad()
    def decode_sparse(self, latents: Sparse) -> Float[Tensor, "n d_in"]:
        """The same reconstruction from the active latents only."""
        decoded = embedding_bag(
            latents.latents, self.W_dec, per_sample_weights=latents.values, mode="sum"
        )
        return decoded.add_(self.b_dec)

    def reconstruct(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        """What the latents of raw residuals say of them."""
        return self.decode_sparse(self.encode_sparse(x))

    def save(self, folder: Path) -> None:
        """Write sae-lens's two files; its `SAE.load_from_disk` reads them.

        Raises:
            ConfigError: The disk refuses.
        """
        try:
            self._sae.save_model(folder)
        except SafetensorError as error:
            raise ConfigError(
                f"runs: {folder} can't be written ({error}); free disk there or set runs= to "
                "another disk, and run again: training goes on from its checkpoint"
            ) from error
        self.name, self.fingerprint = _name(folder), _fingerprint(folder)


def load_dictionary(folder: Path, device: torch.device | str = "cpu") -> Dictionary:
    """Read an SAE of one reader's residuals, in sae-lens's format.

    Raises:
        MissingInput: There is none.
        BrokenArtifact: It is cut short, or its normalisation depends on each input, so that no
            latent has a fixed direction in the residual stream.
        ConfigError: It is a crosscoder, which reads both readers at once.
    """
    dictionary = load_any(folder, device)
    if "reader_scales" in dictionary.metadata:
        raise ConfigError(
            f"train.readers=crosscoder: {folder} has one code for both readers, and what is asked "
            "of it here is asked of one; set train.readers=pooled, base, rl or released"
        )
    return dictionary


def load_any(folder: Path, device: torch.device | str = "cpu") -> Dictionary:
    """Read what `train` made, an SAE or the joint SAE of a crosscoder.

    Raises:
        MissingInput: There is none.
        BrokenArtifact: It is cut short, or its normalisation depends on each input.
    """
    return Dictionary(_read(folder, device), name=_name(folder), fingerprint=_fingerprint(folder))


def _read(folder: Path, device: torch.device | str) -> Any:
    """An SAE of sae-lens, whose latents have fixed directions."""
    from sae_lens import SAE

    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).exists():
            raise MissingInput(f"{folder / file} is missing; run `make train` first")
    try:
        sae = SAE.load_from_disk(folder, device=str(device), dtype="float32")
    except Exception as error:  # Cut-short files surface as whatever their reader raises.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BrokenArtifact(
            f"{folder} can't be read as an SAE ({reason}); delete it, run `make train`"
        ) from error
    if sae.cfg.normalize_activations != "none":
        raise BrokenArtifact(
            f"{folder} normalises activations by {sae.cfg.normalize_activations}, which can't be "
            "folded into its weights; use an SAE trained without"
        )
    return sae


def load_trained(folder: Path, layer: int, d_model: int, device: torch.device | str) -> Dictionary:
    """An SAE that `make train` left, after checking that it's the one that was measured there.

    Args:
        folder: Of the SAE.
        layer: Decoder block that it must read.
        d_model: Width of the residuals that it must read.
        device: Where its weights go.

    Raises:
        MissingInput: There is none.
        BrokenArtifact: It is cut short, or another one.
    """
    dictionary = load_dictionary(folder, device)
    remedy = "delete it and run `make train` again"
    if dictionary.d_in != d_model:
        raise BrokenArtifact(
            f"{folder} reads residuals of width {dictionary.d_in}, its reader's are {d_model} "
            f"wide; {remedy}"
        )
    if dictionary.layer not in (layer, -1):
        raise BrokenArtifact(f"{folder} holds an SAE of layer {dictionary.layer}; {remedy}")
    quality = folder / "quality.json"
    if quality.exists() and read_json(quality)["fingerprint"] != dictionary.fingerprint:
        raise BrokenArtifact(f"{folder} holds another SAE than `make train` measured; {remedy}")
    return dictionary


def load_ranked(
    root: Path, shortlist: Shortlist, layers: Sequence[int], device: torch.device | str
) -> dict[int, Dictionary]:
    """By layer, the dictionaries that a shortlist was made from.

    Args:
        root: Folder of the experiment on the pair.
        shortlist: What `make rank` found.
        layers: Decoder blocks that are wanted.
        device: Where the weights go.

    Raises:
        BrokenArtifact: There are others by now.
    """
    found = {}
    for known in shortlist.dictionaries.values():
        dictionary = load_dictionary(root / known.folder, device)
        if dictionary.fingerprint != known.fingerprint:
            raise BrokenArtifact(
                f"{root / 'rank' / 'shortlist.json'} was made from another dictionary than "
                f"{known.folder} ({known.fingerprint}, not {dictionary.fingerprint}); "
                "run `make rank` again"
            )
        if dictionary.layer in layers:
            found[dictionary.layer] = dictionary
    return found


def build_training_sae(
    config: SaeConfig,
    *,
    d_in: int,
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """A new `sae_lens.TrainingSAE` of the configured architecture.

    Args:
        config: Architecture and sizes.
        d_in: Width of the activations.
        seed: Of its weights.
        steps: Of the whole training; the penalties of jumprelu and standard warm up over a tenth.
        device: Where its weights are.
        metadata: Kept in its `cfg.json`: model, layer and so on, in JSON's types.

    Raises:
        ConfigError: sae-lens refuses the values.
    """
    import sae_lens

    shared: dict[str, Any] = {
        "d_in": d_in,
        "d_sae": config.d_sae,
        "device": str(device),
        # The trainer scales activations itself and folds the scale into the weights at the end.
        "normalize_activations": "none",
        "metadata": sae_lens.saes.sae.SAEMetadata(**(metadata or {})),
    }
    topk = {"k": config.k, "aux_loss_coefficient": config.aux_loss_coefficient}
    warm_up = steps // 10
    widths = config.matryoshka_widths or _nested_widths(config.d_sae)
    makers = {
        "topk": lambda: _sparse_topk_class()(sae_lens.TopKTrainingSAEConfig(**shared, **topk)),
        "batchtopk": lambda: sae_lens.BatchTopKTrainingSAE(
            sae_lens.BatchTopKTrainingSAEConfig(**shared, **topk)
        ),
        "matryoshka_batchtopk": lambda: sae_lens.MatryoshkaBatchTopKTrainingSAE(
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(
                **shared, **topk, matryoshka_widths=list(widths)
            )
        ),
        "jumprelu": lambda: sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(
                **shared, l0_coefficient=config.l0_coefficient, l0_warm_up_steps=warm_up
            )
        ),
        "standard": lambda: sae_lens.StandardTrainingSAE(
            sae_lens.StandardTrainingSAEConfig(
                **shared, l1_coefficient=config.l1_coefficient, l1_warm_up_steps=warm_up
            )
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return makers[config.architecture]()
        except ValueError as error:
            raise ConfigError(
                f"train.sae.architecture={config.architecture}: {error}; correct train.sae"
            ) from error


def training_losses(
    sae: Any, x: Tensor, *, is_dead: Tensor, coefficients: dict[str, float], step: int
) -> Any:
    """sae-lens's `TrainStepOutput` of one batch of scaled activations."""
    from sae_lens.saes.sae import TrainStepInput

    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=is_dead,
            n_training_steps=step,
            is_logging_step=False,
        )
    )


@torch.no_grad()
def finish(sae: Any, scale: float) -> Dictionary:
    """The dictionary that a training SAE has become.

    Args:
        sae: Trained on activations times `scale`; changed in place.
        scale: Folded into the weights, as are the decoder's norms.
    """
    from sae_lens import SAE

    sae.fold_activation_norm_scaling_factor(scale)
    sae.fold_W_dec_norm()
    weights = sae.state_dict()
    sae.process_state_dict_for_saving_inference(weights)
    inference: nn.Module = SAE.from_dict(sae.cfg.get_inference_sae_cfg_dict())
    inference.load_state_dict(weights)
    return Dictionary(inference)


@cache
def _sparse_topk_class() -> type:
    """sae-lens's TopK SAE with a sparse training step: the same losses and gradients, sooner."""
    from sae_lens import TopKTrainingSAE
    from sae_lens.saes.sae import TrainStepInput, TrainStepOutput

    class SparseTopKTrainingSAE(TopKTrainingSAE):
        """Trains in sae-lens's own trainer too; saved, it is a plain sae-lens TopK SAE."""

        def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
            x = step_input.sae_in
            reconstruction, values, latents = autoencode(
                x, self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.cfg.k
            )
            losses = {
                "mse_loss": (reconstruction - x).square().sum(1).mean(),
                "auxiliary_reconstruction_loss": self._revival_loss(
                    (x - reconstruction).detach(), x, step_input.dead_neuron_mask
                ),
            }
            rows = torch.arange(len(x), device=x.device).repeat_interleave(self.cfg.k)
            active = torch.sparse_coo_tensor(
                torch.stack([rows, latents.flatten()]),
                values.flatten(),
                (len(x), self.cfg.d_sae),
                check_invariants=False,
            )
            loss = losses["mse_loss"] + losses["auxiliary_reconstruction_loss"]
            return TrainStepOutput(
                sae_in=x,
                sae_out=reconstruction,
                feature_acts=active,
                hidden_pre=values,
                loss=loss,
                losses=losses,
            )

        def _revival_loss(self, residual: Tensor, x: Tensor, is_dead: Tensor | None) -> Tensor:
            """Dead latents explain what the living leave (Gao et al. 2406.04093, A.2).

            As sae-lens's `calculate_topk_aux_loss`, on the dead columns only.
            """
            dead = x.new_empty(0) if is_dead is None else is_dead.nonzero().flatten()
            if len(dead) == 0:
                return x.new_zeros(())
            k = self.cfg.d_in // 2
            scale = min(len(dead) / k, 1.0)
            directions = self.W_dec[dead]
            pre = torch.addmm(self.b_enc[dead], x - self.b_dec, self.W_enc[:, dead])
            if len(dead) > k:
                chosen = (pre * directions.norm(dim=1)).topk(k, dim=-1, sorted=False).indices
                pre = torch.zeros_like(pre).scatter(-1, chosen, pre.gather(-1, chosen))
            error = (pre @ directions - residual).square().sum(1).mean()
            return self.cfg.aux_loss_coefficient * scale * error

    return SparseTopKTrainingSAE


def _nested_widths(d_sae: int) -> list[int]:
    """Halves of halves, the last the whole."""
    return sorted({max(d_sae >> level, 1) for level in range(_MATRYOSHKA_LEVELS)})


def _layer(metadata: Any) -> int:
    """Decoder block of an SAE: ours says so, a released one names a hook `blocks.7.…`.

    What enters a block is what left the one before.
    """
    if metadata.layer is not None:
        return int(metadata.layer)
    where = str(metadata.hook_name)
    numbers = [part for part in where.split(".") if part.isdigit()]
    return int(numbers[0]) - where.endswith(BEFORE_BLOCK) if numbers else -1


def _name(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


def _fingerprint(folder: Path) -> str:
    return fingerprint([fingerprint_files(folder, file) for file in (CONFIG_FILE, WEIGHTS_FILE)])
