"""What decides the attacks on shortlisted latents; the values stand in conf/attacks/."""

from dataclasses import dataclass

from sae_reasoning.config.checks import positive, require


@dataclass
class AttackConfig:
    """Bars of the attacks; all are held against bounds of intervals but where it says so.

    Attributes:
        keep: Share of its advantage over chance that a latent must keep among what is alike.
        weak: AUROC that it must exceed for an attack to mean anything.
        comparable: Least share of spans that have anything like them to be compared with (a count
            of what there is, no estimate).
        items: Fewest spans, and fewest windows, that decide anything.
        problems: Fewest problems that they come from.
        token_intervals: Intervals that hold a token, below which a latent isn't said to answer to
            it.
        token_occurrences: Of an n-gram on the select split, below which it isn't put elsewhere.
        null_latents: Latents of like mass, not shortlisted, that an injection is held against.
        null_p: Share of those, the latent counted in, that may rise as much where words kill.
        carrier_fvu: Most of the variance of a kind of text that a dictionary may leave unexplained
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
    carrier_fvu: float = 0.1
    replica_cosine: float = 0.7
    replica_ranks: int = 2

    def __post_init__(self) -> None:
        prefix = "rank.attacks"
        positive(self, prefix, "items", "problems", "token_intervals", "token_occurrences")
        positive(self, prefix, "null_latents", "carrier_fvu", "replica_ranks")
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
