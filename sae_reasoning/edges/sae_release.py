"""SAEs that were trained elsewhere: in a folder, or in a release of sae-lens's registry.

sae-lens is imported inside functions: the import costs seconds.
"""

import difflib
from pathlib import Path

import torch

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.artifacts import BrokenArtifact, MissingInput
from sae_reasoning.edges.sae_checkpoint import BEFORE_BLOCK, Dictionary, load_any

_RESIDUAL_HOOKS = ("hook_resid_post", BEFORE_BLOCK)


def load_released(
    folder: Path, layer: int, d_model: int, device: torch.device | str = "cpu"
) -> Dictionary:
    """Read an SAE that was trained elsewhere, for the residual after a decoder block.

    Args:
        folder: Its own.
        layer: Decoder block; the SAE may not know, and is told.
        d_model: Width of the residual stream.
        device: Where its weights are.

    Raises:
        ConfigError: There is none, or it can't be read, or it isn't one of that residual.
    """
    option = f"train.released={folder}"
    try:
        dictionary = load_any(folder, device)
    except (MissingInput, BrokenArtifact) as error:
        raise ConfigError(f"{str(error).split(';')[0]}; correct {option}") from error
    _place(dictionary, option, layer, d_model)
    return dictionary


def load_registered(
    release: str, sae_id: str, layer: int, d_model: int, device: torch.device | str = "cpu"
) -> Dictionary:
    """Fetch an SAE of sae-lens's registry, for the residual after a decoder block.

    Args:
        release: Its release there, or a hub id (owner/name) of SAEs in sae-lens's format.
        sae_id: Of the SAE in it.
        layer: Decoder block.
        d_model: Width of the residual stream.
        device: Where its weights are.

    Raises:
        ConfigError: There is none of that name, or it can't be fetched, or isn't one of that
            residual.
    """
    from sae_lens import SAE

    check_registered(release, sae_id)
    option = f"train.sae.release={release} train.sae.id={sae_id}"
    try:
        sae = SAE.from_pretrained(release, sae_id, device=str(device), dtype="float32")
    except Exception as error:  # Whatever the hub, or a release's own loader, raises.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{option} can't be fetched ({reason}); run again while the hub can be "
            "reached, or bring a folder by train.released"
        ) from error
    if sae.cfg.normalize_activations != "none":
        raise ConfigError(
            f"{option} normalises activations by {sae.cfg.normalize_activations}, which can't be "
            "folded into its weights; choose another"
        )
    dictionary = Dictionary(sae)
    _place(dictionary, option, layer, d_model)
    return dictionary


def check_registered(release: str, sae_id: str) -> None:
    """Check an SAE's name against sae-lens's registry; nothing is fetched.

    Raises:
        ConfigError: The registry doesn't have it.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    if release in known:
        ids = known[release].saes_map
        if sae_id not in ids:
            near = difflib.get_close_matches(sae_id, ids, n=3) or list(ids)[:3]
            raise ConfigError(
                f"train.sae.id={sae_id} is none of the {len(ids)} SAEs of train.sae.release="
                f"{release}; there is {', '.join(near)}"
            )
    elif "/" not in release:
        near = difflib.get_close_matches(release, known, n=3, cutoff=0.4)
        raise ConfigError(
            f"train.sae.release={release} isn't in sae-lens's registry; "
            + (f"did you mean {', '.join(near)}?" if near else "name one, or a hub id (owner/name)")
        )


def _place(dictionary: Dictionary, option: str, layer: int, d_model: int) -> None:
    """Refuse an SAE of another residual; one that doesn't know its layer is told."""
    where, own = str(dictionary.metadata.get("hook_name") or ""), dictionary.layer
    if "hook_" in where and not where.endswith(_RESIDUAL_HOOKS):
        raise ConfigError(
            f"{option} reads {where}; bring an SAE of the residual after a block, or "
            "before the next"
        )
    if own != layer and (own >= 0 or where.endswith(BEFORE_BLOCK)):
        raise ConfigError(
            f"{option} reads {where or f'the residual after block {own}'}, layers asks "
            f"for the residual after block {layer}; correct the path, or layers"
        )
    if dictionary.d_in != d_model:
        raise ConfigError(
            f"{option} reads residuals of width {dictionary.d_in}, the models' have "
            f"{d_model}; bring an SAE that was trained on these models"
        )
    dictionary.belongs_to(layer)
