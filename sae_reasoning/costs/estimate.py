"""Tokens, disk, FLOPs and hours of each stage; nothing is measured and nothing runs.

1. Tokens: texts times readers. Edited rollouts count as cut at their longest, since an edited model
   may never stop.
2. Disk: bytes of the cache's rows.
3. FLOPs of matrices and attention; hours of a card at a stated share of its peak, or, where a model
   writes, of its memory's bandwidth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_reasoning.config import Config
from sae_reasoning.edges.activation_format import row_bytes
from sae_reasoning.edges.lm.shapes import ModelSize
from sae_reasoning.steering.edit_plans import num_conditions


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
        prompt: Mean tokens of a prompt.
        response: Mean tokens of a response.
        source: Where the figures are from.
        is_written: Whether a model here writes them; else they're brought along.
    """

    number: int
    prompt: float
    response: float
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
        tokens: That it reads, trains on or writes.
        flops: Floating-point operations.
        share: Of a card's peak at which they are done.
        moved: Bytes between memory and processor, where a model writes.
        disk: Bytes.
    """

    stage: str
    tokens: float
    flops: float
    share: float
    moved: float = 0.0
    disk: float = 0.0

    def hours(self, card: Card, bandwidth: float) -> float:
        """On one card: reading by its peak, writing by its bandwidth."""
        seconds = self.flops / (card.peak * self.share) + self.moved / (card.bandwidth * bandwidth)
        return seconds / 3600


def estimate(cfg: Config, sizes: Mapping[str, ModelSize], texts: Mapping[str, Texts]) -> list[Cost]:
    """Costs of the stages from traces to ablate; of crosscoders, which `rank` refuses, without it.

    A crosscoder reads and writes both residuals, so its dictionary is as wide as they are together,
    and while one model writes an edited text the other reads along.
    """
    own, sae = cfg.plan, cfg.train.sae
    read = sum(text.tokens for text in texts.values())
    context = read / max(sum(text.number for text in texts.values()), 1)
    extra = 1 if cfg.cache.tokens == "response" else -1  # The last prompt position; but BOS.
    kept = sum(
        t.number * (t.response + extra + (0 if cfg.cache.tokens == "response" else t.prompt))
        for t in texts.values()
    )
    deepest = max(cfg.layers) + 1
    passes = len(sizes) * len(cfg.layers)
    is_joint = cfg.train.readers == "crosscoder"
    width = sum(s.d_model for s in sizes.values()) if is_joint else sizes["rl"].d_model
    disk = (
        kept * len(cfg.layers) * sum(row_bytes(s.d_model, cfg.cache.dtype) for s in sizes.values())
    )
    encode = 2.0 * width * sae.d_sae
    steps = 0 if cfg.train.readers == "released" else cfg.train.steps * cfg.train.batch_size
    training = 6 * encode * steps * len(cfg.layers)  # Dense: forward, and twice that backward.
    behaviours = len(cfg.ablate.behaviours or cfg.behaviours)
    begun = {"base": cfg.ablate.base_samples, "rl": cfg.ablate.samples}
    edited = {
        model: Texts(
            num_conditions(cfg.ablate, model, behaviours, is_single=cfg.pair.is_single)
            * cfg.ablate.num_problems
            * begun[model],
            texts[model if model in texts else next(iter(texts))].prompt,
            float(cfg.ablate.max_new_tokens),
        )
        for model in sizes
    }
    written = {m: text for m, text in texts.items() if text.is_written and m in sizes}
    traces = [_written(sizes[m], text, cfg.traces.batch_size) for m, text in written.items()]
    ablated = [
        _written(sizes[at_work], edited[model], cfg.ablate.batch_size)
        for model in sizes
        for at_work in (sizes if is_joint else (model,))
    ]
    attributed = 2 * behaviours * cfg.rank.attribution_onsets * context / 2
    gradients = sum(3 * s.read_flops(context, s.num_layers, True) for s in sizes.values())
    ranking = Cost(
        "rank",
        kept * passes,
        # Also the SAE of a reader that was never trained, and attributions.
        encode * kept * passes + training + attributed * gradients,
        own.sae_utilisation,
    )
    return [
        _writing("traces", written, traces, own.utilisation),
        Cost(
            "cache",
            read * len(sizes),
            sum(read * s.read_flops(context, deepest) for s in sizes.values()),
            own.utilisation,
            disk=disk,
        ),
        Cost("train", float(steps * len(cfg.layers)), training, own.sae_utilisation),
        *([] if is_joint else [ranking]),
        _writing("ablate (at most)", edited, ablated, own.utilisation),
    ]


def _writing(
    stage: str, texts: Mapping[str, Texts], parts: Sequence[tuple[float, float]], share: float
) -> Cost:
    return Cost(
        stage,
        sum(text.number * text.response for text in texts.values()),
        sum(flops for flops, _ in parts),
        share,
        sum(moved for _, moved in parts),
    )


def _written(size: ModelSize, texts: Texts, batch: int) -> tuple[float, float]:
    """FLOPs, and bytes moved: weights once a step of a batch, caches once a token, in 16 bits."""
    flops = texts.tokens * size.read_flops(texts.prompt + texts.response, size.num_layers, True)
    tokens = texts.number * texts.response
    rows = min(batch, max(texts.number, 1))
    looked_at = texts.prompt + texts.response / 2
    return flops, 2.0 * tokens * (size.parameters / rows + size.cached * looked_at)
