"""What can be wrong with activations on disk, and what helps."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sae_reasoning.config import ConfigError
from sae_reasoning.edges.activation_format import RowIndex, StoreAttributes
from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.lock import InUse


def check_finite(
    activations: Float[Tensor, "row d_model"],
    index: RowIndex,
    attributes: StoreAttributes,
    trace_ids: Sequence[str],
) -> None:
    """Refuse a shard in which a value isn't finite.

    Raises:
        ConfigError: One isn't; the message names its trace and position.
    """
    if not activations.numel():
        return
    # The extremes tell in one pass each: NaN propagates through them.
    low, high = activations.aminmax()
    if torch.isfinite(low) and torch.isfinite(high):
        return
    row = int((~activations.isfinite().all(1)).nonzero()[0])
    trace = trace_ids[int(index.trace_index[row])]
    kind = "NaN" if activations[row].isnan().any() else "infinite"
    remedy = "set the model's dtype=float32 (pair.base.dtype, pair.rl.dtype)"
    if kind == "NaN":
        remedy += "; if it is, its weights are broken"
    elif attributes.dtype == "float16":
        remedy = "float16 ends at 65504: set cache.dtype=bfloat16"
    raise ConfigError(
        f"cache.dtype={attributes.dtype}: activations of {attributes.model} after "
        f"layer {attributes.layer} are {kind} on trace {trace}, position "
        f"{int(index.position[row])}; {remedy}"
    )


def is_locked(error: Exception) -> bool:
    """Whether HDF5 failed for a lock."""
    return "unable to lock file" in str(error)


def in_use(path: Path) -> InUse:
    """A shard that another process holds."""
    return InUse(
        f"{path} is in use by another process, or on a filesystem without locks; end what holds it "
        "open, or set HDF5_USE_FILE_LOCKING=FALSE in the environment, and run again"
    )


def missing(path: Path, of: str = "") -> BrokenArtifact:
    """A shard that isn't there."""
    return BrokenArtifact(f"{path} is missing{of}; run `make cache` again, which makes it alone")


def broken(path: Path, what: str) -> BrokenArtifact:
    """What is wrong with one file."""
    return BrokenArtifact(
        f"{path} {what}; delete it and run `make cache` again, which makes it alone"
    )


def unfit(path: Path, what: str) -> BrokenArtifact:
    """What is wrong with more than one file."""
    cache = next((p for p in path.parents if p.name == "cache"), path.parent)
    return BrokenArtifact(f"{path} {what}; delete {cache} and run `make cache` again")


def reason(error: Exception) -> str:
    """Its first line."""
    return str(error).strip("\"'").splitlines()[0]
