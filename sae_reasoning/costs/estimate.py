"""Tokens, disk, FLOPs and hours of each stage; nothing is measured and nothing runs.

1. Tokens: texts times readers. Edited rollouts count as cut at their longest, since an edited model
   may never stop; costs/stages.py counts the stages after them.
2. Disk: bytes of the cache's rows.
3. FLOPs of matrices and attention; hours of a card at a stated share of its peak, or, where a model
   writes, of its memory's bandwidth.
"""

from collections.abc import Mapping

from sae_reasoning.config import Config
from sae_reasoning.costs.stages import Posed, contrast_steps, elicit_work, hybrid_work
from sae_reasoning.costs.work import Cost, Texts, Work, cost_of
from sae_reasoning.edges.activation_format import row_bytes
from sae_reasoning.edges.lm.shapes import ModelSize
from sae_reasoning.steering.edit_plans import num_conditions


def estimate(cfg: Config, sizes: Mapping[str, ModelSize], texts: Mapping[str, Texts]) -> list[Cost]:
    """Costs of the stages in their order; of crosscoders without `rank` and all that needs it.

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
    traces = [
        Work([model], text.number, text.prompt, text.response)
        for model, text in texts.items()
        if text.is_written and model in sizes
    ]
    edited = [
        Work(
            [model, *(sizes.keys() - {model} if is_joint else ())],
            num_conditions(cfg.ablate, model, behaviours, is_single=cfg.pair.is_single)
            * cfg.ablate.num_problems
            * begun[model],
            texts[model if model in texts else next(iter(texts))].prompt,
            float(cfg.ablate.max_new_tokens),
        )
        for model in sizes
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
        cost_of("traces", traces, sizes, cfg.traces.batch_size, own.utilisation),
        Cost(
            "cache",
            read * len(sizes),
            sum(read * s.read_flops(context, deepest) for s in sizes.values()),
            own.utilisation,
            disk=disk,
        ),
        Cost("train", float(steps * len(cfg.layers)), training, own.sae_utilisation),
        *([] if is_joint else [ranking]),
        cost_of("ablate", edited, sizes, cfg.ablate.batch_size, own.utilisation),
        *([] if cfg.pair.is_single else _of_two_models(cfg, sizes, texts)),
    ]


def _of_two_models(
    cfg: Config, sizes: Mapping[str, ModelSize], texts: Mapping[str, Texts]
) -> list[Cost]:
    """Each step of `contrast`, and the stages that look for what recovers the gap."""
    posed, share = Posed.of(cfg, texts), cfg.plan.utilisation
    work = {f"contrast: {name}": own for name, own in contrast_steps(cfg, posed).items()}
    costs = [
        cost_of(name, own, sizes, cfg.contrast.batch_size, share) for name, own in work.items()
    ]
    if cfg.train.readers != "crosscoder":
        steered = hybrid_work(cfg, posed)
        costs.append(cost_of("hybrid", steered, sizes, cfg.hybrid.batch_size, share))
    elicited = elicit_work(cfg, posed)
    return [*costs, cost_of("elicit", elicited, sizes, cfg.elicit.batch_size, share)]
