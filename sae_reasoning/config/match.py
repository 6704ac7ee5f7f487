"""Options of the matching of latents between the dictionaries of two runs."""

from dataclasses import dataclass, field

from sae_reasoning.config.checks import one_of, other_run, positive, require
from sae_reasoning.config.pair import ModelConfig


@dataclass
class MatchConfig:
    """Matches of this run's latents in the dictionary of another.

    Attributes:
        other: The other run, as `<experiment>/<pair>` below `runs`.
        model: Its reader, where that isn't this pair's; unset, it's taken from the file of
            conf/pair/ that names the other run's pair.
        reader: Whose activations, on both sides: `base` or `rl`.
        dictionary: This run's folder of SAEs below train/; empty for that of train.readers.
        other_dictionary: The other's; empty for the one that it trained.
        num_problems: Problems of the report split whose traces are read, at most.
        min_fires: Tokens, or words, on which a latent must fire to take part.
        null_draws: Draws of the null.
        strong: Cosine or correlation from which a match is strong.
        bootstrap: Resamples of problems.
        seed: Of the null and of the resamples.
    """

    other: str = ""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(path=""))
    reader: str = "rl"
    dictionary: str = ""
    other_dictionary: str = ""
    num_problems: int = 300
    min_fires: int = 20
    null_draws: int = 100
    strong: float = 0.7
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        prefix = "match"
        self.model.checked_as("match.model")
        other_run("match.other", self.other)
        one_of("match.reader", self.reader, ("base", "rl"))
        positive(self, prefix, "num_problems", "bootstrap")
        require(self.min_fires >= 2, f"match.min_fires={self.min_fires} must be 2 or more; try 20")
        require(
            self.null_draws >= 20,
            f"match.null_draws={self.null_draws} is too few for a 95 % quantile; raise it to 20",
        )
        require(0 < self.strong < 1, f"match.strong={self.strong} must be within 0 and 1; try 0.7")
