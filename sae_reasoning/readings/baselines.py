"""Scores of the baselines that each pass leaves, for shortlisted latents to be compared with."""

from collections.abc import Mapping
from pathlib import Path

from sae_reasoning.behaviours.windows import Intervals, cell_index
from sae_reasoning.edges.arrays import read_arrays, write_arrays
from sae_reasoning.records import REPORT
from sae_reasoning.robustness.baseline_comparison import ScoresByCell
from sae_reasoning.stats.aurocs import Ranked


def baselines_path(parts: Path, reader: str, layer: int, name: str) -> Path:
    """Scores of the baselines that a shortlist is compared with, of a reader and layer."""
    return parts / f"{reader}_layer_{layer}_{name}_baselines.npz"


def save_baselines(path: Path, found: Mapping[str, ScoresByCell]) -> None:
    """Keep the scores of a pass's baselines."""
    arrays = {
        f"{baseline}/{behaviour}/{writer}": own.scores
        for baseline, scores in found.items()
        for (behaviour, writer), own in scores.items()
    }
    write_arrays(path, arrays)


def load_baselines(
    path: Path, compared: Intervals, behaviours: list[str]
) -> dict[str, ScoresByCell]:
    """The scores that `save_baselines` kept."""
    found: dict[str, dict[tuple[str, str], Ranked]] = {}
    for name, scores in read_arrays(path).items():
        baseline, _, cell = name.partition("/")
        behaviour, _, writer = cell.rpartition("/")  # A behaviour's name may hold a slash.
        here = compared.of_cell(cell_index(behaviours.index(behaviour), writer, REPORT))
        found.setdefault(baseline, {})[behaviour, writer] = Ranked(
            scores, compared.is_positive[here], compared.problem[here]
        )
    return dict(found)
