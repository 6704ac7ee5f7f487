"""From characters of a response to tokens of a trace.

A span's tokens are those that share a character with it. Onset-1 of an opportunity is the last
token that ends where the text before the behaviour ends, or earlier; before the first response
token that is the last prompt token. So it precedes a span's first token, whether white space
belongs to the token after it, is a token of its own or no token at all.

Where two tokenizers cut the same text differently, what they share are its words.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_reasoning.records import (
    Annotation,
    Opportunity,
    Span,
    TokenOpportunity,
    TokenSpan,
    Trace,
)
from sae_reasoning.tasks.problems import Problem

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


@dataclass(frozen=True)
class Rollout:
    """A response to a problem, with its tokens.

    Attributes:
        prompt_ids: Tokens of the prompt, BOS included.
        response_ids: Tokens of the text, as they were sampled.
        offsets: Characters of each of those.
        end_id: EOS, if the writer ended with it.
        text: The response.
        truncated: Whether it was cut.
    """

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    offsets: Offsets
    end_id: int | None
    text: str
    truncated: bool

    def annotated(
        self,
        problem: Problem,
        annotation: Annotation,
        *,
        annotator: str,
        writer: str,
        model: str,
        sample: str,
    ) -> Trace:
        """The trace, with spans and opportunities aligned to tokens.

        Args:
            problem: What was asked.
            annotation: What an annotator says of the text.
            annotator: Its name.
            writer: `base` or `rl`.
            model: Name of the writer.
            sample: Which of the writer's rollouts on the problem.

        Raises:
            NoTokensError: No token shares a character with some span.
        """
        first = len(self.prompt_ids)
        end = () if self.end_id is None else (self.end_id,)
        return Trace(
            trace_id=f"{problem.problem_id}/{writer}/{sample}",
            problem_id=problem.problem_id,
            split=problem.split,
            writer=writer,
            model=model,
            prompt=problem.prompt,
            text=self.text,
            token_ids=(*self.prompt_ids, *self.response_ids, *end),
            num_prompt_tokens=first,
            correct=annotation.correct,
            truncated=self.truncated,
            spans=tuple(align_span(s, self.offsets, first, annotator) for s in annotation.spans),
            opportunities=tuple(
                align_opportunity(o, self.offsets, first) for o in annotation.opportunities
            ),
        )


def cut_to(trace: Trace, most: int, offsets: Offsets) -> Trace:
    """The first tokens of a trace, with the behaviours and opportunities that lie there.

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


def under_prompt(trace: Trace, prompt_ids: Sequence[int]) -> Trace:
    """A trace as a reader gets it whose prompt is put in other words than the writer's.

    Args:
        trace: With the prompt that its writer got; one that says nothing of it stays as it is.
        prompt_ids: The same question as the reader is asked it.

    Returns:
        The trace with the reader's prompt before the same response; spans and opportunities are
        moved along.
    """
    moved = len(prompt_ids) - trace.num_prompt_tokens
    if not trace.prompt or tuple(prompt_ids) == trace.token_ids[: trace.num_prompt_tokens]:
        return trace
    return replace(
        trace,
        token_ids=(*prompt_ids, *trace.token_ids[trace.num_prompt_tokens :]),
        num_prompt_tokens=len(prompt_ids),
        spans=tuple(
            replace(s, token_start=s.token_start + moved, token_end=s.token_end + moved)
            for s in trace.spans
        ),
        opportunities=tuple(replace(o, token=o.token + moved) for o in trace.opportunities),
    )
