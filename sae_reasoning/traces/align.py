"""From characters of a response to tokens of a trace.

A span's tokens are those that share a character with it. Onset-1 of an opportunity is the last
token that ends where the text before the move ends, or earlier; before the first response token
that is the last prompt token. So it precedes a span's first token, whether white space belongs to
the token after it, is a token of its own or no token at all.

Where two tokenizers cut the same text differently, what they share are its words.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sae_reasoning.records import (
    Annotation,
    Opportunity,
    Span,
    TokenOpportunity,
    TokenSpan,
    Trace,
)
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.traces.annotate import annotator_for

Offsets = Sequence[tuple[int, int]]


class NoTokensError(ValueError):
    """A tokenizer has no token for some stretch of text."""


_WORD = re.compile(r"\S+")


def align_span(span: Span, offsets: Offsets, num_prompt_tokens: int, annotator: str) -> TokenSpan:
    """The tokens of a span.

    Args:
        span: Characters of the response.
        offsets: Characters of each response token, in order.
        num_prompt_tokens: Tokens before the response.
        annotator: Who marked the span.

    Raises:
        ValueError: The span lies outside its text.
        NoTokensError: No token shares a character with it.
    """
    ((first, last),) = _tokens_of([(span.char_start, span.char_end)], offsets)
    named = f"span {span.behaviour} [{span.char_start}, {span.char_end})"
    if not 0 <= span.char_start < span.char_end:
        raise ValueError(f"{named} lies outside its text")
    if first >= last:
        raise NoTokensError(f"the tokenizer has no token for any character of {named}")
    return TokenSpan(
        behaviour=span.behaviour,
        char_start=span.char_start,
        char_end=span.char_end,
        token_start=num_prompt_tokens + first,
        token_end=num_prompt_tokens + last,
        annotator=annotator,
    )


def align_words(text: str, offsets: Offsets) -> list[tuple[int, int]]:
    """First token of each word, and one past its last; a word is a run without white space.

    A token that holds characters of two words belongs to both.

    Args:
        text: The response.
        offsets: Characters of each of its tokens, in order.

    Raises:
        NoTokensError: No token shares a character with some word.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    tokens = _tokens_of(words, offsets)
    for (start, end), (first, last) in zip(words, tokens, strict=True):
        if first >= last:
            raise NoTokensError(f"no token holds a character of {text[start:end]!r}")
    return tokens


def _tokens_of(places: Sequence[tuple[int, int]], offsets: Offsets) -> list[tuple[int, int]]:
    """Tokens that share a character with each of some `[start, end)`."""
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    return [(bisect_right(ends, start), bisect_left(starts, end)) for start, end in places]


def align_opportunity(
    opportunity: Opportunity, offsets: Offsets, num_prompt_tokens: int
) -> TokenOpportunity:
    """The onset-1 token of an opportunity."""
    first = bisect_right([end for _, end in offsets], opportunity.char_end)
    return TokenOpportunity(
        behaviour=opportunity.behaviour,
        char_end=opportunity.char_end,
        token=num_prompt_tokens + first - 1,
        taken=opportunity.taken,
    )


def build_trace(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    offsets: Offsets,
    annotation: Annotation,
    *,
    end_id: int | None,
    annotator: str,
    trace_id: str,
    problem_id: str,
    split: str,
    writer: str,
    model: str,
    prompt: str,
    text: str,
    truncated: bool,
) -> Trace:
    """A trace with its moves aligned to tokens.

    Args:
        prompt_ids: Tokens of the prompt, BOS included.
        response_ids: Tokens of the response's text.
        offsets: Characters of each response token.
        annotation: Moves, opportunities and grade.
        end_id: EOS where the writer ended, to be appended.
        annotator: Who marked the moves.
        trace_id: Unique in its table.
        problem_id: Problem it answers.
        split: `select` or `report`.
        writer: `base` or `rl`.
        model: Name of the writer.
        prompt: What was asked.
        text: What was answered.
        truncated: Whether it was cut.
    """
    num_prompt_tokens = len(prompt_ids)
    return Trace(
        trace_id=trace_id,
        problem_id=problem_id,
        split=split,
        writer=writer,
        model=model,
        prompt=prompt,
        text=text,
        token_ids=(*prompt_ids, *response_ids, *(() if end_id is None else (end_id,))),
        num_prompt_tokens=num_prompt_tokens,
        correct=annotation.correct,
        truncated=truncated,
        spans=tuple(
            align_span(span, offsets, num_prompt_tokens, annotator) for span in annotation.spans
        ),
        opportunities=tuple(
            align_opportunity(opportunity, offsets, num_prompt_tokens)
            for opportunity in annotation.opportunities
        ),
    )


@dataclass(frozen=True)
class Rollout:
    """What a model wrote on a problem, with its tokens.

    Attributes:
        prompt_ids: Tokens of the prompt, BOS included.
        response_ids: Tokens of the text.
        offsets: Characters of each of those.
        end_id: EOS, if the writer ended.
        text: The response.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    offsets: Offsets
    end_id: int | None
    text: str

    def annotated(
        self, problem: Problem, source: str, writer: str, model: str, sample: str
    ) -> Trace:
        """The trace, with moves as the annotator of `source` sees them; without, if it has none.

        Args:
            problem: What was asked.
            source: Of the problems.
            writer: `base` or `rl`.
            model: Name of the writer.
            sample: Which of the writer's rollouts on the problem.
        """
        annotate = annotator_for(source)
        truncated = self.end_id is None
        annotation = Annotation((), (), None)
        if annotate:
            annotation = annotate(problem.prompt, self.text, truncated)
        return build_trace(
            self.prompt_ids,
            self.response_ids,
            self.offsets,
            annotation,
            end_id=self.end_id,
            annotator=source,
            trace_id=f"{problem.problem_id}/{writer}/{sample}",
            problem_id=problem.problem_id,
            split=problem.split,
            writer=writer,
            model=model,
            prompt=problem.prompt,
            text=self.text,
            truncated=truncated,
        )
