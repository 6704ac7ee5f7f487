"""Whether the base is made to think: what the pair's traces and the base's template say."""

from collections.abc import Sequence

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.prompt import prompt_opens_thinking
from sae_reasoning.records import Trace
from sae_reasoning.tasks.search.grammar import THINK
from sae_reasoning.traces.annotate import annotator_for


def thinking_prefix(cfg: Config, traces: Sequence[Trace]) -> str:
    """What every response of the base begins with, written for it; "" for nothing.

    Left to itself, it's written where the base has it of its own: in the organisms' world, and
    where some of its traces begin with it.

    Raises:
        ConfigError: `ablate.think=true`, and there is no base, its chat template opens the thought
            itself, or nobody's traces begin with the mark.
    """
    asked = cfg.ablate.think
    if asked is False or (cfg.pair.is_single and asked is None):
        return ""
    if cfg.pair.is_single:
        raise ConfigError(
            f"ablate.think=true is about a base, and pair={cfg.pair.name} has none; leave it out"
        )
    if annotator_for(cfg.traces.source) is not None:
        return THINK
    begin = {trace.writer for trace in traces if trace.text.lstrip().startswith(THINK)}
    if asked is None:
        return THINK if "base" in begin and not _is_open(cfg, traces) else ""
    if not begin:
        raise ConfigError(
            f"ablate.think=true, but no trace of traces.source={cfg.traces.source} begins with "
            f"{THINK}, so it means nothing to this pair; leave it out"
        )
    if _is_open(cfg, traces):
        raise ConfigError(
            f"ablate.think=true, but the prompts of {cfg.pair.base.named} open the thought "
            "themselves; leave it out"
        )
    return THINK


def _is_open(cfg: Config, traces: Sequence[Trace]) -> bool:
    return prompt_opens_thinking(load_tokenizer(cfg.pair.base), traces[0].prompt)
