"""Moves marked by whoever is asked to: in natural text by words or by a language model."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.endpoint import Chat, Question
from sae_reasoning.edges.lm.load import load_tokenizer
from sae_reasoning.edges.lm.offsets import offsets_in
from sae_reasoning.records import Annotation, Span, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.text.cues import Lexicon
from sae_reasoning.tasks.text.judge import (
    Judged,
    UnreadableAnswerError,
    answer_schema,
    estimate_tokens,
    instructions,
    read_answer,
    wrap,
)
from sae_reasoning.tasks.text.placing import Placement
from sae_reasoning.tasks.text.sentences import sentence_opportunities
from sae_reasoning.traces.align import NoTokensError, align_opportunity, align_span


@dataclass
class Marked:
    """Traces with their moves.

    Attributes:
        traces: Those that could be marked, in order.
        placement: A model's quotes, and those found in the texts.
        failures: Of traces left out, why, by trace id.
    """

    traces: list[Trace]
    placement: Placement = field(default_factory=Placement)
    failures: dict[str, str] = field(default_factory=dict)


def mark(cfg: Config, annotator: str, traces: Sequence[Trace], console: Console) -> Marked:
    """The traces as an annotator sees them; grades stay."""
    tokenizer = load_tokenizer(next(iter(cfg.pair.readers.values())))

    def marked(trace: Trace, found: Annotation, name: str) -> Trace:
        first = trace.num_prompt_tokens
        offsets = offsets_in(tokenizer, trace)
        try:
            spans = tuple(align_span(span, offsets, first, name) for span in found.spans)
        except NoTokensError as error:
            raise ConfigError(
                f"traces.annotator={annotator}: in trace {trace.trace_id} {error}; leave the trace "
                "out, or name a tokenizer that has tokens for it"
            ) from error
        return replace(
            trace,
            spans=spans,
            opportunities=tuple(align_opportunity(o, offsets, first) for o in found.opportunities),
        )

    def by_sentence(trace: Trace, spans: Sequence[Span], name: str) -> Trace:
        opportunities = sentence_opportunities(trace.text, spans, cfg.behaviours)
        return marked(trace, Annotation(tuple(spans), opportunities, None), name)

    if annotator == "imported":
        return Marked(list(traces))
    if annotator == "grammar":
        grammar = search_task()
        found = [
            grammar.annotator.annotate(
                Problem(t.problem_id, t.split, t.prompt), t.text, truncated=t.truncated
            )
            for t in traces
        ]
        return Marked([marked(t, one, "search") for t, one in zip(traces, found, strict=True)])
    if annotator == "cues":
        lexicon = Lexicon(cfg.traces.cues, cfg.behaviours)
        return Marked([by_sentence(t, lexicon.spans(t.text), "cues") for t in traces])
    judged, failures = _judge(cfg, traces, console)
    placement = Placement()
    made = []
    for trace in traces:
        if (one := judged.get(trace.trace_id)) is not None:
            placement.add(one.placement)
            made.append(by_sentence(trace, one.spans, f"llm:{cfg.traces.annotator_model}"))
    return Marked(made, placement, failures)


def _judge(
    cfg: Config, traces: Sequence[Trace], console: Console
) -> tuple[dict[str, Judged], dict[str, str]]:
    """What a model says of each trace; answers that can't be read are asked for again.

    Raises:
        ConfigError: The endpoint refuses, or too many answers can't be read.
    """
    part = cfg.traces
    kept = Path(cfg.runs) / ".answers"
    chat = Chat(part.annotator_endpoint, part.annotator_model, "traces.annotator", kept)
    system = instructions(cfg.behaviours, part.meanings)
    schema = answer_schema(cfg.behaviours)
    questions = {t.trace_id: Question(system, wrap(t.text), schema) for t in traces}
    unknown = {t.text for t in traces if chat.known(questions[t.trace_id]) is None}
    _estimate(cfg, sorted(unknown), console)
    judged: dict[str, Judged] = {}
    failures: dict[str, str] = {}
    pending = list(traces)
    for attempt in range(part.annotator_attempts):
        asked = [replace(questions[trace.trace_id], seed=attempt) for trace in pending]
        label = "model marks" if not attempt else f"asked again ({attempt})"
        with console.progress(len(asked), "traces", label) as bar:
            for number, answer in chat.ask_all(asked, part.annotator_concurrency):
                trace = pending[number]
                try:
                    judged[trace.trace_id] = read_answer(answer, trace.text, cfg.behaviours)
                    failures.pop(trace.trace_id, None)
                except UnreadableAnswerError as error:
                    failures[trace.trace_id] = str(error)
                bar.advance()
        pending = [trace for trace in pending if trace.trace_id in failures]
        if not pending:
            break
    if len(failures) > part.annotator_failures * len(traces):
        trace_id, reason = next(iter(failures.items()))
        raise ConfigError(
            f"traces.annotator_model={part.annotator_model} gave no readable answer on "
            f"{len(failures)} of {len(traces)} traces (the first, {trace_id}: {reason}), more than "
            f"traces.annotator_failures={part.annotator_failures}; choose a model that follows "
            "instructions, or raise it"
        )
    if failures:
        console.warn(
            f"{len(failures)} of {len(traces)} traces are left out: no readable answer on them "
            f"({', '.join(list(failures)[:3])})"
        )
    return judged, failures


def _estimate(cfg: Config, texts: Sequence[str], console: Console) -> None:
    """Say what the model will cost before it's asked."""
    sent, answered = estimate_tokens(texts, instructions(cfg.behaviours, cfg.traces.meanings))
    console.plan(
        "annotator",
        {
            "model": f"{cfg.traces.annotator_model} at {cfg.traces.annotator_endpoint}",
            "requests": f"{len(texts):,} (the rest is answered on disk), "
            f"{cfg.traces.annotator_concurrency} at once",
            "tokens": f"about {sent:,} sent and {answered:,} answered",
        },
    )
