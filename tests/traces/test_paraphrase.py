"""The same moves in other words."""

import numpy as np
from behaviours.examples import narrated_traces

from sae_reasoning.tasks.search.grammar import (
    BACKTRACKING,
    BEHAVIOURS,
    OPENINGS,
    REWORDED,
    VERIFICATION,
    vocabulary,
)
from sae_reasoning.tasks.search.parser import parse
from sae_reasoning.tasks.search.task import reword
from sae_reasoning.tasks.search.world import parse_prompt
from sae_reasoning.traces.paraphrase import paraphrase


def _encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    ids = {word: number for number, word in enumerate(vocabulary())}
    offsets, start = [], 0
    for word in text.split(" "):
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return [ids[word] for word in text.split(" ")], offsets


def test_a_reworded_trace_makes_the_same_moves_with_the_same_slots() -> None:
    rng = np.random.default_rng(0)
    num_new = 0
    for trace in narrated_traces(lambda text: _encode(text)[0], 12):
        made = paraphrase(trace, BEHAVIOURS, reword, _encode, rng)
        assert made is not None
        problem = parse_prompt(trace.prompt)
        before, after = (parse(problem, t.text, False) for t in (trace, made.trace))
        assert [s.behaviour for s in after.spans] == [s.behaviour for s in before.spans]
        for old, new, is_new in zip(trace.spans, made.trace.spans, made.is_new, strict=True):
            was = trace.text[old.char_start : old.char_end]
            now = made.trace.text[new.char_start : new.char_end]
            assert old.behaviour == new.behaviour
            assert (was != now) == is_new
            if is_new:
                num_new += 1
                opening = next(o for o in REWORDED[old.behaviour] if now.startswith(o))
                said = next(o for o in OPENINGS[old.behaviour] if was.startswith(o))
                assert now.removeprefix(opening) == was.removeprefix(said)
                assert now.split()[0] != was.split()[0]
            words = now.split(" ")
            ids = made.trace.token_ids[new.token_start : new.token_end]
            assert list(ids) == _encode(" ".join(words))[0]
        assert made.trace.problem_id == trace.problem_id
    assert num_new > 50


def test_only_the_moves_asked_for_are_reworded_and_none_leaves_none() -> None:
    rng = np.random.default_rng(0)
    (trace, *_) = (
        t
        for t in narrated_traces(lambda text: _encode(text)[0], 12)
        if {s.behaviour for s in t.spans} >= {BACKTRACKING, VERIFICATION}
    )
    made = paraphrase(trace, [BACKTRACKING], reword, _encode, rng)
    assert made is not None
    new = {s.behaviour for s, n in zip(made.trace.spans, made.is_new, strict=True) if n}
    assert new == {BACKTRACKING}
    assert paraphrase(trace, [], reword, _encode, rng) is None
    assert reword(BACKTRACKING, "no such opening", rng) is None
    assert reword("uncharted", "wait", rng) is None
