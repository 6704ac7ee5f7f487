"""Options of the transfer matrix."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import require


@dataclass
class TransferConfig:
    """Edits of one pair's latents in another's models, joined over pairs of the experiment.

    Attributes:
        pairs: Names of pairs, each a source and a target to every other; empty for every two of
            which one was edited through the other's latents (`ablate.matches_of`).
    """

    pairs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(
            len(self.pairs) != 1 and len(set(self.pairs)) == len(self.pairs),
            f"transfer.pairs={self.pairs} must be two or more different pairs, or empty for all",
        )
        require(
            all("/" not in name for name in self.pairs),
            f"transfer.pairs={self.pairs} must be names of pairs of this experiment, no folders",
        )
