"""Agreement of two people, or annotators, beyond chance."""

import numpy as np
from jaxtyping import Float


def kappa(
    confusion: Float[np.ndarray, "*sample cell"],
) -> Float[np.ndarray, "*sample"]:
    """Cohen's κ of square confusion tables, flattened; NaN where both always say the same one."""
    size = round(confusion.shape[-1] ** 0.5)
    table = confusion.reshape(*confusion.shape[:-1], size, size)
    total = table.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(table, axis1=-2, axis2=-1) / total
        expected = (table.sum(-1) * table.sum(-2)).sum(-1) / total**2
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
