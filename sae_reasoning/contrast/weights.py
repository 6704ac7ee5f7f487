"""How much training changed the weights, module by module.

After Mukherjee et al. (2505.11711, §3): an update is counted where it survives rounding to
bfloat16; RL changes 5-30 % of the parameters so, in updates of nearly full rank.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class WeightChange:
    """Change of one module's parameters, over all layers.

    Attributes:
        module: Name without layer numbers; `all` for the model.
        num_parameters: How many there are.
        changed: Share that differs after rounding both to bfloat16.
        relative_norm: Norm of the update over the norm of the weights.
        effective_rank: exp(entropy of the normalised singular values) of the update (Roy and
            Vetterli 2007) over the largest possible, meaned over its matrices; NaN for vectors.
    """

    module: str
    num_parameters: int
    changed: float
    relative_norm: float
    effective_rank: float


def weight_changes(
    before: Mapping[str, Shaped[Tensor, "..."]], after: Mapping[str, Shaped[Tensor, "..."]]
) -> list[WeightChange]:
    """Changes of the parameters of two models of one architecture, the whole model last.

    Raises:
        ValueError: They don't have the same parameters.
    """
    if {n: p.shape for n, p in before.items()} != {n: p.shape for n, p in after.items()}:
        raise ValueError("the two models don't have the same parameters")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in before:
        groups[".".join(part for part in name.split(".") if not part.isdigit())].append(name)
    groups["all"] = list(before)
    return [_change(module, names, before, after) for module, names in groups.items()]


def _change(
    module: str, names: list[str], before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> WeightChange:
    changed = total = 0
    squares = old_squares = 0.0
    ranks = []
    for name in names:
        old, new = before[name].float(), after[name].float()
        changed += int((old.bfloat16() != new.bfloat16()).sum())
        total += old.numel()
        squares += float((new - old).square().sum())
        old_squares += float(old.square().sum())
        if old.ndim == 2 and module != "all":
            ranks.append(_effective_rank(new - old))
    return WeightChange(
        module=module,
        num_parameters=total,
        changed=changed / total,
        relative_norm=(squares / old_squares) ** 0.5 if old_squares else float("nan"),
        effective_rank=sum(ranks) / len(ranks) if ranks else float("nan"),
    )


def _effective_rank(update: Float[Tensor, "row column"]) -> float:
    values = torch.linalg.svdvals(update)
    if not float(values.sum()):
        return 0.0
    shares = values / values.sum()
    entropy = -torch.xlogy(shares, shares).sum()
    return float(entropy.exp()) / min(update.shape)
