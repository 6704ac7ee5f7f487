"""What a run will take, from the config alone: tokens, disk, FLOPs and GPU hours.

1. Texts: counted where traces are made, else problems × samples × mean lengths: prompts of the
   search world are drawn, responses are as long as was measured of the shipped models, and what
   nobody knows is an option (plan.*), said to be assumed. Edited rollouts count as cut at their
   longest, since an edited model may never stop.
2. Disk: bytes of the cache's rows.
3. FLOPs of matrices and attention; hours of a card at a stated share of its peak, or, where a model
   writes, of its memory's bandwidth. Nothing is measured and nothing runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_format import row_bytes
from sae_reasoning.edges.artifacts import MissingInput, require_stage
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.inputs import outside_inputs
from sae_reasoning.edges.lm.depth import check_layers
from sae_reasoning.edges.lm.limits import require_context
from sae_reasoning.edges.lm.load import encode_prompt, load_tokenizer
from sae_reasoning.edges.lm.shapes import ModelSize, size_of
from sae_reasoning.edges.tables import read_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.opening import draw_search_problems
from sae_reasoning.steering.edit_plans import num_conditions
from sae_reasoning.texts import number


@dataclass(frozen=True)
class _Card:
    """Matrix peak in bfloat16 (FLOPs a second, dense) and memory bandwidth (bytes a second)."""

    peak: float
    bandwidth: float


CARDS = {
    "A100": _Card(312e12, 2.0e12),
    "H100": _Card(989e12, 3.35e12),
    "H200": _Card(989e12, 4.8e12),
    "L40S": _Card(362e12, 0.86e12),
}
"""By their makers' figures: A100 80 GB SXM, H100 SXM, H200 SXM, L40S."""

MEASURED_TOKENS = {
    "search_base_llama": 14.8,
    "search_rl_llama": 120.3,
    "search_random_llama": 10.4,
    "search_base_lacking_llama": 14.1,
    "search_sft_lacking_llama": 123.7,
    "search_base_neox": 14.8,
    "search_rl_neox": 137.6,
    "search_base_lacking_neox": 14.1,
    "search_sft_lacking_neox": 143.0,
}
"""Mean tokens of a response of shipped models, on 600 problems of seed 0."""


@dataclass(frozen=True)
class Texts:
    """What one writer writes.

    Attributes:
        number: Rollouts.
        prompt: Mean tokens of a prompt.
        response: Mean tokens of a response.
        source: Where the figures are from.
    """

    number: int
    prompt: float
    response: float
    source: str

    @property
    def tokens(self) -> float:
        """Read by each reader."""
        return self.number * (self.prompt + self.response)


@dataclass(frozen=True)
class Cost:
    """Of one stage: FLOPs, and bytes that generation behaviours; disk in bytes."""

    stage: str
    tokens: float
    flops: float
    share: float
    moved: float = 0.0
    disk: float = 0.0

    def hours(self, card: _Card, bandwidth: float) -> float:
        """On one card: reading by its peak, writing by its bandwidth."""
        seconds = self.flops / (card.peak * self.share) + self.moved / (card.bandwidth * bandwidth)
        return seconds / 3600


def plan(cfg: Config, *, tracker: Tracker, console: Console) -> list[Cost]:
    """Print what each stage will take."""
    if unknown := set(cfg.plan.cards) - set(CARDS):
        raise ConfigError(
            f"plan.cards={cfg.plan.cards} names {min(unknown)}, of which nothing is known; choose "
            f"of {', '.join(CARDS)}"
        )
    sizes = {reader: size_of(model, cfg.plan) for reader, model in cfg.pair.readers.items()}
    for reader, size in sizes.items():
        check_layers(cfg.layers, size.num_layers, cfg.pair.readers[reader].path)
    texts = _texts(cfg)
    costs = estimate(cfg, sizes, texts)
    console.plan(
        "plan",
        {
            **{
                f"{reader} model": f"{size.parameters / 1e9:.3g} billion parameters, "
                f"{size.num_layers} blocks of {size.d_model}{_context_told(size)} ({size.source})"
                for reader, size in sizes.items()
            },
            **{
                f"{writer} writes": f"{text.number:,} rollouts of {number(text.response, 0)} "
                f"tokens after {number(text.prompt, 0)} ({text.source})"
                for writer, text in texts.items()
            },
            "assumed": f"{cfg.plan.utilisation:.0%} of the matrix peak (SAEs "
            f"{cfg.plan.sae_utilisation:.0%}), {cfg.plan.bandwidth:.0%} of the bandwidth; batches "
            f"of {cfg.traces.batch_size}; one card",
        },
    )
    for said in _too_long(cfg, sizes, texts):
        console.warn(said)
    rows = [
        [
            cost.stage,
            f"{number(cost.tokens / 1e6, 2)} M",
            megabytes(cost.disk) if cost.disk else "-",
            f"{cost.flops:.2e}",
            *(number(cost.hours(CARDS[card], cfg.plan.bandwidth), 2) for card in cfg.plan.cards),
        ]
        for cost in costs
    ]
    hours = [f"{card} hours" for card in cfg.plan.cards]
    console.table("what it will take", ["stage", "tokens", "disk", "FLOPs", *hours], rows)
    return costs


def estimate(cfg: Config, sizes: dict[str, ModelSize], texts: dict[str, Texts]) -> list[Cost]:
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
            "",
        )
        for model in sizes
    }
    traces = [_written(sizes[m], texts[m], cfg.traces.batch_size) for m in sizes if m in texts]
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
        _writing("traces", texts, traces, own.utilisation),
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
    stage: str, texts: dict[str, Texts], parts: Sequence[tuple[float, float]], share: float
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


def _context_told(size: ModelSize) -> str:
    return "" if size.context is None else f", {size.context:,} tokens of context"


def _too_long(cfg: Config, sizes: dict[str, ModelSize], texts: dict[str, Texts]) -> Iterator[str]:
    """Contexts that rollouts of the longest kind would exceed."""
    prompt = max((round(text.prompt) for text in texts.values()), default=0)
    for reader, model in cfg.pair.readers.items():
        try:
            require_context(
                sizes[reader].context,
                model.named,
                prompt,
                cfg.traces.max_new_tokens,
                "traces.max_new_tokens",
            )
        except ConfigError as error:
            yield str(error)


def _texts(cfg: Config) -> dict[str, Texts]:
    made = _made(cfg)
    if made:
        return made
    prompt, source = float(cfg.plan.prompt_tokens), "prompts assumed"
    if cfg.traces.source == "search" and Path(cfg.pair.rl.path).is_dir():
        problems = draw_search_problems(cfg)
        tokenizer = load_tokenizer(cfg.pair.rl)
        lengths = [len(encode_prompt(tokenizer, p.prompt)) for p in problems]
        prompt, source = sum(lengths) / len(lengths), "prompts drawn"
    found = {}
    for writer, samples, assumed in (
        ("base", cfg.traces.base_samples, cfg.plan.base_tokens),
        ("rl", cfg.traces.rl_samples, cfg.plan.rl_tokens),
    ):
        if writer not in cfg.pair.readers:
            continue
        name = Path(getattr(cfg.pair, writer).path).name
        said = "responses as measured" if name in MEASURED_TOKENS else "responses assumed"
        response = min(MEASURED_TOKENS.get(name, assumed), cfg.traces.max_new_tokens)
        number = cfg.traces.num_problems * samples
        found[writer] = Texts(number, prompt, float(response), f"{source}, {said}")
    return found


def _made(cfg: Config) -> dict[str, Texts]:
    """From traces that are there and current; empty where there are none."""
    if not (cfg.folder / "traces" / "manifest.json").exists():
        return {}
    try:
        require_stage(cfg.folder, "traces", cfg.settings("traces"), outside_inputs(cfg))
    except (MissingInput, ConfigError):
        return {}
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    found = {}
    for writer in sorted({trace.writer for trace in traces}):  # A single model reads others' too.
        own = [trace for trace in traces if trace.writer == writer]
        number = max(len(own), 1)
        prompt = sum(trace.num_prompt_tokens for trace in own) / number
        tokens = sum(len(trace.token_ids) for trace in own) / number
        found[writer] = Texts(len(own), prompt, tokens - prompt, "counted in traces")
    return found
