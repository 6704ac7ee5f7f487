"""Statistics on dependent data: the unit of resampling is the problem, never the token.

Every estimate carries its n and a 95 % interval.
"""

from sae_reasoning.stats.agreement import kappa
from sae_reasoning.stats.aurocs import (
    AurocEstimates,
    Compared,
    Kept,
    Ranked,
    auroc,
    bootstrap_auroc,
    clustered_auroc,
    compare_aurocs,
    kept_auroc,
    sparse_concordance,
    tie_runs,
)
from sae_reasoning.stats.estimates import (
    Estimate,
    benjamini_hochberg,
    difference,
    most_of_none,
    pass_at,
    widen_flat,
    wilson,
)
from sae_reasoning.stats.gaps import gap_between, gap_recovered, is_gap, level_of
from sae_reasoning.stats.resampling import MOSTLY, bootstrap_of_sums, paired_bootstrap

__all__ = [
    "MOSTLY",
    "AurocEstimates",
    "Compared",
    "Estimate",
    "Kept",
    "Ranked",
    "auroc",
    "benjamini_hochberg",
    "bootstrap_auroc",
    "bootstrap_of_sums",
    "clustered_auroc",
    "compare_aurocs",
    "difference",
    "gap_between",
    "gap_recovered",
    "is_gap",
    "kappa",
    "kept_auroc",
    "level_of",
    "most_of_none",
    "paired_bootstrap",
    "pass_at",
    "sparse_concordance",
    "tie_runs",
    "widen_flat",
    "wilson",
]
