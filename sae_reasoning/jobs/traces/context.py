"""Imported traces, held against what the models that are to read them can read."""

from collections.abc import Sequence
from dataclasses import replace

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.limits import require_context, require_embeddings
from sae_reasoning.edges.lm.load import describe, load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.records import Trace


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
            cut(trace, most, offsets_of(tokenizer, _response(trace), trace.text))
            if len(trace.token_ids) > most
            else trace
            for trace in found
        ]
    return found


def _response(trace: Trace) -> tuple[int, ...]:
    return trace.token_ids[trace.num_prompt_tokens :]


def cut(trace: Trace, most: int, offsets: Sequence[tuple[int, int]]) -> Trace:
    """The first tokens of a trace, with the moves and opportunities that lie there.

    Args:
        trace: A longer one.
        most: Tokens that are left, at least one of the response.
        offsets: Characters of each token of its response.
    """
    end = offsets[most - trace.num_prompt_tokens - 1][1]
    return replace(
        trace,
        text=trace.text[:end],
        token_ids=trace.token_ids[:most],
        truncated=True,
        spans=tuple(
            replace(span, char_end=min(span.char_end, end), token_end=min(span.token_end, most))
            for span in trace.spans
            if span.token_start < most and span.char_start < end
        ),
        opportunities=tuple(one for one in trace.opportunities if one.token < most - 1),
    )
