"""What a run will take, from the config alone: tokens, disk, FLOPs and GPU hours.

1. What each writer writes (costs/texts.py).
2. What each stage makes of it (costs/estimate.py).
3. What won't work: layers that a model doesn't have, rollouts longer than its context.
"""

from collections.abc import Iterator, Mapping

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.costs.estimate import estimate
from sae_reasoning.costs.texts import texts_of
from sae_reasoning.costs.work import CARDS, Cost, Texts
from sae_reasoning.edges.console import Console, megabytes
from sae_reasoning.edges.lm.depth import check_layers, too_shallow
from sae_reasoning.edges.lm.limits import require_context
from sae_reasoning.edges.lm.shapes import ModelSize, size_of
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.texts import number


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
    texts = texts_of(cfg)
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
            "layers": ", ".join(map(str, cfg.layers)),
            "assumed": f"{cfg.plan.utilisation:.0%} of the matrix peak (SAEs "
            f"{cfg.plan.sae_utilisation:.0%}), {cfg.plan.bandwidth:.0%} of the bandwidth; batches "
            f"of {cfg.traces.batch_size}; one card",
        },
    )
    for said in _doubts(cfg, sizes, texts):
        console.warn(said)
    rows = [
        [
            cost.stage,
            *(f"{number(one / 1e6, 2)} M" if one else "-" for one in (cost.read, cost.written)),
            megabytes(cost.disk) if cost.disk else "-",
            f"{cost.flops:.2e}",
            *(number(cost.hours(CARDS[card], cfg.plan.bandwidth), 2) for card in cfg.plan.cards),
        ]
        for cost in costs
    ]
    hours = [f"{card} hours" for card in cfg.plan.cards]
    console.table(
        "what it will take, tokens read and written; from ablate on at most",
        ["stage", "read", "written", "disk", "FLOPs", *hours],
        rows,
    )
    return costs


def _context_told(size: ModelSize) -> str:
    return "" if size.context is None else f", {size.context:,} tokens of context"


def _doubts(
    cfg: Config, sizes: Mapping[str, ModelSize], texts: Mapping[str, Texts]
) -> Iterator[str]:
    """Layers that may not be meant, and contexts that rollouts of the longest kind would exceed."""
    size, model = sizes["rl"], cfg.pair.rl
    if said := too_shallow(cfg.layers, size.num_layers, model.path):
        yield said
    prompt = max((round(text.prompt) for text in texts.values()), default=0)
    most, option = cfg.traces.max_new_tokens, "traces.max_new_tokens"
    for reader, model in cfg.pair.readers.items():
        try:
            require_context(sizes[reader].context, model.named, prompt, most, option)
        except ConfigError as error:
            yield str(error)
