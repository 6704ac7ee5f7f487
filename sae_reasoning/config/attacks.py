"""What decides the attacks on shortlisted latents; the values are in conf/attacks/."""

from dataclasses import dataclass

from sae_reasoning.config.checks import positive, require


@dataclass
class AttackConfig:
    """Thresholds of the attacks; they apply to bounds of intervals but where it says so.

    Attributes:
        keep: Share of its advantage over chance that a latent must retain within strata.
        weak: AUROC that it must exceed for an attack to mean anything.
        comparable: Least share of spans that have a match to be compared with (a count of what
            there is, no estimate).
        items: Fewest spans, and fewest windows, that decide anything.
        problems: Fewest problems that they come from.
        token_intervals: Intervals that hold a token, below which a latent's mean activation on it
            isn't trusted.
        token_occurrences: Of an n-gram on the select split, below which it isn't put elsewhere.
        null_latents: Latents of like mass, not shortlisted, that an injection is compared with.
        null_p: Share of those, the latent counted in, that may respond as much where words refute.
        host_fvu: Most of the variance of a kind of text that a dictionary may leave unexplained
            for words put into it to say anything of its latents (a share of all tokens read).
        replica_cosine: Of decoder rows, from which a latent of another seed's dictionary is the
            same (of two given matrices: no estimate).
        replica_ranks: Shortlist's lengths within which it must rank there.
    """

    keep: float = 0.5
    weak: float = 0.6
    comparable: float = 0.5
    items: int = 20
    problems: int = 10
    token_intervals: int = 10
    token_occurrences: int = 5
    null_latents: int = 50
    null_p: float = 0.05
    host_fvu: float = 0.1
    replica_cosine: float = 0.7
    replica_ranks: int = 2

    def __post_init__(self) -> None:
        prefix = "rank.attacks"
        positive(self, prefix, "items", "problems", "token_intervals", "token_occurrences")
        positive(self, prefix, "null_latents", "host_fvu", "replica_ranks")
        require(0 < self.keep < 1, f"{prefix}.keep={self.keep} must be between 0 and 1; try 0.5")
        require(
            0.5 <= self.weak < 1,
            f"{prefix}.weak={self.weak} must be from 0.5 to below 1; try 0.6",
        )
        require(
            0 < self.comparable <= 1,
            f"{prefix}.comparable={self.comparable} must be a share above 0; try 0.5",
        )
        require(
            1 / (1 + self.null_latents) < self.null_p < 1,
            f"{prefix}.null_p={self.null_p} can't be reached with {prefix}.null_latents="
            f"{self.null_latents}; raise one of them",
        )
        require(
            0 < self.replica_cosine <= 1,
            f"{prefix}.replica_cosine={self.replica_cosine} must be above 0 and at most 1; try 0.7",
        )
