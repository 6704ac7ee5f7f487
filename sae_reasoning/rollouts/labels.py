"""Traces with the labels of an annotator, on the tokens that were sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sae_reasoning.config import ConfigError, ModelConfig
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_in
from sae_reasoning.records import Trace
from sae_reasoning.tasks.annotations import Placement, Unlabelled, nothing
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Annotator
from sae_reasoning.traces.align import NoTokensError, align_opportunity, align_span


@dataclass
class LabelledTraces:
    """Traces with their behaviours.

    Attributes:
        traces: Those that could be labelled, in order.
        placement: Of an annotator that quotes, its quotes and those found in the texts.
        left_out: Of the other traces, why, by trace id.
    """

    traces: list[Trace]
    placement: Placement = field(default_factory=Placement)
    left_out: dict[str, str] = field(default_factory=dict)


def unlabelled(traces: Sequence[Trace]) -> list[Unlabelled]:
    """The responses of traces, as annotators are given them."""
    return [
        Unlabelled(Problem(t.problem_id, t.split, t.prompt), t.text, t.truncated) for t in traces
    ]


def label_traces(
    annotator: Annotator,
    traces: Sequence[Trace],
    reader: ModelConfig,
    advance: Callable[[], None] = nothing,
) -> LabelledTraces:
    """The traces as an annotator labels them; grades stay.

    Args:
        annotator: Whose labels.
        traces: With or without others' labels.
        reader: A model whose tokens they are in.
        advance: Called after each.

    Raises:
        ConfigError: The tokenizer has no token for some label's text.
    """
    tokenizer = load_tokenizer(reader)
    said = annotator.annotate_all(unlabelled(traces), advance)
    made = []
    for trace, found in zip(traces, said.annotations, strict=True):
        if found is None:
            continue
        offsets, first = offsets_in(tokenizer, trace), trace.num_prompt_tokens
        try:
            spans = tuple(align_span(s, offsets, first, annotator.name) for s in found.spans)
        except NoTokensError as error:
            raise ConfigError(
                f"traces.annotator={annotator.name}: in trace {trace.trace_id} {error}; leave the "
                "trace out, or name a tokenizer that has tokens for it"
            ) from error
        places = tuple(align_opportunity(o, offsets, first) for o in found.opportunities)
        made.append(replace(trace, spans=spans, opportunities=places))
    left_out = {traces[index].trace_id: reason for index, reason in said.reasons.items()}
    return LabelledTraces(made, said.placement, left_out)
