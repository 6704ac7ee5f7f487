"""The units of a text on which two dictionaries are compared: tokens, or words where tokens differ.

One side's tokens are rows of the cache; the other's are numbered along all of its responses, one
after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from sae_reasoning.behaviours.windows import Intervals, Rows, problem_numbers
from sae_reasoning.records import Trace
from sae_reasoning.traces.align import Offsets, align_words


@dataclass(frozen=True)
class Language:
    """A tokenizer, as far as a model needs it to read a text.

    Attributes:
        expresses: Whether it has tokens for all of a text.
        prompt: Token ids of a prompt.
        response: Token ids of a response, and the characters of each.
        offsets: Characters of each token of a response that was written in such tokens.
    """

    expresses: Callable[[str], bool]
    prompt: Callable[[str], list[int]]
    response: Callable[[str], tuple[list[int], Offsets]]
    offsets: Callable[[Sequence[int], str], Offsets]


@dataclass(frozen=True)
class Units:
    """Units of some traces, as both sides see them.

    Attributes:
        own: Rows of the cache that make each unit.
        other: The other side's rows.
        trace: Of each unit; a trace's units stand together.
        problem: Of each unit.
        kind: Which token, or word, each unit is.
        prompts: Of each trace, in the other's tokens; none where it reads the same ones.
        responses: Likewise.
        num_traces: Traces that both sides read.
        num_left_out: Traces that the other side's tokenizer can't express.
    """

    own: Intervals
    other: Intervals
    trace: Int[np.ndarray, " unit"]
    problem: Int[np.ndarray, " unit"]
    kind: Int[np.ndarray, " unit"]
    prompts: list[list[int]]
    responses: list[list[int]]
    num_traces: int
    num_left_out: int


def token_units(traces: Mapping[int, Trace], rows: Rows) -> Units:
    """The cached tokens from the last prompt position on, each a unit.

    Args:
        traces: By number.
        rows: Where their tokens are cached.
    """
    row, trace = [], []
    for place, (number, own) in enumerate(traces.items()):
        first = rows.row(number, max(own.num_prompt_tokens - 1, 0))
        here = np.arange(first, rows.row_of_trace[number + 1])
        row.append(here)
        trace.append(np.full(len(here), place))
    start, trace_of = np.concatenate(row), np.concatenate(trace)
    problem = np.array(problem_numbers(list(traces.values())))[trace_of]
    units = _intervals(start, start + 1, problem)
    return Units(
        units, units, trace_of, problem, rows.token_id[start], [], [], len(traces), num_left_out=0
    )


def word_units(traces: Mapping[int, Trace], rows: Rows, own: Language, other: Language) -> Units:
    """The words of the responses that the other side's tokenizer can express, each a unit.

    Args:
        traces: By number.
        rows: Where their tokens are cached.
        own: Of the cached tokens.
        other: Of the other side.

    Raises:
        ValueError: A trace's tokens aren't those of its own language.
    """
    kept: list[Trace] = []
    spoken: list[str] = []
    places: list[tuple[int, ...]] = []
    prompts, responses, num_rows = [], [], 0
    for number, trace in traces.items():
        if not (other.expresses(trace.prompt) and other.expresses(trace.text)):
            continue
        offsets = own.offsets(trace.token_ids[trace.num_prompt_tokens :], trace.text)
        if max((end for _, end in offsets), default=0) < len(trace.text):
            raise ValueError(f"trace {trace.trace_id} has other tokens than its text")
        other_ids, other_offsets = other.response(trace.text)
        try:
            words, other_words = (align_words(trace.text, o) for o in (offsets, other_offsets))
        except ValueError:
            continue  # A tokenizer that doesn't say where some word is.
        first = rows.row(number, trace.num_prompt_tokens)
        for (start, stop), (other_start, other_stop) in zip(words, other_words, strict=True):
            own_rows = first + start, first + stop
            other_rows = num_rows + other_start, num_rows + other_stop
            places.append((*own_rows, *other_rows, len(kept)))
        kept.append(trace)
        spoken += trace.text.split()
        prompts.append(other.prompt(trace.prompt))
        responses.append(other_ids)
        num_rows += len(other_ids)
    table = np.array(places, np.int64).reshape(-1, 5)
    trace_of = table[:, 4]
    problem = np.array(problem_numbers(kept), np.int64)[trace_of]
    return Units(
        own=_intervals(table[:, 0], table[:, 1], problem),
        other=_intervals(table[:, 2], table[:, 3], problem),
        trace=trace_of,
        problem=problem,
        kind=np.unique(spoken, return_inverse=True)[1],
        prompts=prompts,
        responses=responses,
        num_traces=len(kept),
        num_left_out=len(traces) - len(kept),
    )


def _intervals(start: np.ndarray, stop: np.ndarray, problem: np.ndarray) -> Intervals:
    """Units as intervals of one cell."""
    nothing = np.zeros(len(start), np.int64)
    return Intervals(start, stop, nothing, nothing.astype(bool), problem, nothing)
