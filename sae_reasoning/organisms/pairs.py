"""Pairs of organisms on disk: what a verdict is held against."""

from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import CalibrateConfig, ConfigError, OrganismConfig
from sae_reasoning.organisms.cells import PAIRS, grid


@dataclass(frozen=True)
class OrganismPair:
    """One pair of the grid.

    Attributes:
        kind: Of `cells.PAIRS`.
        family: Architecture and tokenizer.
        seed: Of both models.
        folder: Where the models of that seed are.
    """

    kind: str
    family: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Of the pair's folder of results."""
        return f"organism_{self.kind}_{self.family}_seed{self.seed}"

    @property
    def base(self) -> Path:
        """Folder of the model before."""
        return self.folder / f"search_{PAIRS[self.kind][0]}_{self.family}"

    @property
    def rl(self) -> Path:
        """Folder of the model after."""
        return self.folder / f"search_{PAIRS[self.kind][1]}_{self.family}"

    @property
    def lacks(self) -> str | None:
        """The behaviour that the base's corpus lacks, if any."""
        return {one.name: one for one in grid(self.family, self.seed)}[self.base.name].lacks

    @property
    def options(self) -> list[str]:
        """What names it on the command line."""
        return [
            "pair=local",
            f"pair.name={self.name}",
            f"pair.base.path={self.base}",
            f"pair.rl.path={self.rl}",
        ]


def made_pairs(own: CalibrateConfig, organism: OrganismConfig) -> list[OrganismPair]:
    """The pairs that `calibrate` names, whose models are all made.

    Raises:
        ConfigError: A name is unknown, or a model hasn't been made.
    """
    for name in own.pairs:
        if name not in PAIRS:
            raise ConfigError(
                f"calibrate.pairs names {name}, which isn't a pair; choose of {', '.join(PAIRS)}"
            )
    found = [
        OrganismPair(name, family, seed, organism.folder_of(seed))
        for family in own.families
        for seed in own.seeds
        for name in own.pairs
    ]
    for pair in found:
        for model in (pair.base / "config.json", pair.rl / "truth.json"):
            if not model.exists():
                raise ConfigError(
                    f"{model.parent} isn't made; run `make organisms SEEDS={pair.seed} "
                    f"FAMILY={pair.family} ARGS=organism.only=[{pair.rl.name}]` first, or leave "
                    f"{pair.kind} out of calibrate.pairs"
                )
    return found
