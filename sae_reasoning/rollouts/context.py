"""Imported traces, held against what the models that are to read them can read."""

from collections.abc import Sequence

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.limits import require_context, require_embeddings
from sae_reasoning.edges.lm.load import describe, load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.records import Trace
from sae_reasoning.traces.align import cut_to


def fit_readers(cfg: Config, traces: Sequence[Trace], console: Console) -> list[Trace]:
    """The traces, those that are too long for a reader cut where that is asked for.

    Raises:
        ConfigError: A trace is too long, or holds a token that a reader has no embedding of.
    """
    found = list(traces)
    tokenizer = load_tokenizer(next(iter(cfg.pair.readers.values())))
    for model in cfg.pair.readers.values():
        facts = describe(model)
        texts = [trace.token_ids for trace in found]
        if facts.num_embeddings is not None:
            own = ((f"trace {trace.trace_id}", trace.token_ids) for trace in found)
            require_embeddings(tokenizer, facts.num_embeddings, model.named, own)
        most = facts.context
        longest = max(map(len, texts), default=0)
        if most is None or longest <= most:
            continue
        count = sum(len(text) > most for text in texts)
        told = (
            f"{count} of {len(texts)} traces of traces.source={cfg.traces.source} are longer than "
            f"the {most:,} tokens of {model.named}'s context (the longest has {longest:,})"
        )
        if not cfg.traces.cut_to_context:
            raise ConfigError(
                f"{told}; set traces.cut_to_context=true to cut them there, or choose a model with "
                "a longer context"
            )
        require_context(most, model.named, max(t.num_prompt_tokens + 1 for t in found))
        console.warn(f"{told}, and are cut there")
        found = [
            cut_to(trace, most, offsets_of(tokenizer, _response(trace), trace.text))
            if len(trace.token_ids) > most
            else trace
            for trace in found
        ]
    return found


def _response(trace: Trace) -> tuple[int, ...]:
    return trace.token_ids[trace.num_prompt_tokens :]
