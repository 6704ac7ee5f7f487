"""Work of models in tokens, and what it costs: FLOPs, bytes moved, hours of a card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.edges.lm.shapes import ModelSize

GRADIENTS = 3
"""Forward passes that a pass with gradients costs: forward, and twice that backward."""


@dataclass(frozen=True)
class Card:
    """Matrix peak in bfloat16 (FLOPs a second, dense) and memory bandwidth (bytes a second)."""

    peak: float
    bandwidth: float


CARDS = {
    "A100": Card(312e12, 2.0e12),
    "H100": Card(989e12, 3.35e12),
    "H200": Card(989e12, 4.8e12),
    "L40S": Card(362e12, 0.86e12),
}
"""By their makers' figures: A100 80 GB SXM, H100 SXM, H200 SXM, L40S."""


@dataclass(frozen=True)
class Texts:
    """What one writer writes.

    Attributes:
        number: Rollouts.
        problems: Problems that they are of.
        prompt: Mean tokens of a prompt.
        response: Mean tokens of a response.
        before: Mean tokens before a place in a response, of all places; more than a prompt and half
            a response, since long ones have more places.
        source: Where the figures are from.
        is_written: Whether a model here writes them; else they're brought along.
    """

    number: int
    problems: int
    prompt: float
    response: float
    before: float
    source: str = ""
    is_written: bool = True

    @property
    def tokens(self) -> float:
        """Read by each reader."""
        return self.number * (self.prompt + self.response)


@dataclass(frozen=True)
class Cost:
    """What one stage takes.

    Attributes:
        stage: Its name.
        read: Tokens that it reads or trains on.
        flops: Floating-point operations.
        share: Of a card's peak at which they are done.
        written: Tokens that it writes.
        moved: Bytes between memory and processor, where a model writes.
        disk: Bytes.
    """

    stage: str
    read: float
    flops: float
    share: float
    written: float = 0.0
    moved: float = 0.0
    disk: float = 0.0

    def hours(self, card: Card, bandwidth: float) -> float:
        """On one card: reading by its peak, writing by its bandwidth."""
        seconds = self.flops / (card.peak * self.share) + self.moved / (card.bandwidth * bandwidth)
        return seconds / 3600


@dataclass(frozen=True)
class Work:
    """Texts of about one length that models read, and may go on with.

    Attributes:
        models: Who does; of several the first writes, and the others read along.
        number: Texts.
        given: Tokens of each that are read at once.
        added: Tokens that are then written to each.
        copies: Texts that go on from the same tokens, which are read once.
        passes: Forward passes that reading costs.
    """

    models: Sequence[str]
    number: float
    given: float
    added: float = 0.0
    copies: int = 1
    passes: int = 1

    @property
    def read(self) -> float:
        """Tokens that are read at once, by all models."""
        return self.number * self.given / self.copies * len(self.models)

    @property
    def written(self) -> float:
        """Tokens that are written, each of them read, too, by all models."""
        return self.number * self.added

    def flops(self, sizes: Mapping[str, ModelSize]) -> float:
        """Of matrices and attention."""
        each = self.passes * self.number * self.given / self.copies + self.written
        return sum(
            each * s.read_flops(self.given + self.added, s.num_layers, True)
            for s in (sizes[model] for model in self.models)
        )

    def moved(self, sizes: Mapping[str, ModelSize], batch: int) -> float:
        """Bytes to write: weights once a step of a batch, caches once a token, in 16 bits."""
        rows, looked_at = min(batch, max(self.number, 1)), self.given + self.added / 2
        return sum(
            2.0 * self.written * (s.parameters / rows + s.cached * looked_at)
            for s in (sizes[model] for model in self.models)
        )


def cost_of(
    stage: str, work: Sequence[Work], sizes: Mapping[str, ModelSize], batch: int, share: float
) -> Cost:
    """What work of models costs.

    Args:
        stage: Its name.
        work: All of it.
        sizes: Of the models.
        batch: Texts that are written at once.
        share: Of a card's peak.
    """
    return Cost(
        stage,
        sum(one.read for one in work),
        sum(one.flops(sizes) for one in work),
        share,
        sum(one.written for one in work),
        sum(one.moved(sizes, batch) for one in work),
    )
