"""Small annotated traces of the organisms' world, and made-up ones whose rows are easy to count."""

import random
from collections.abc import Callable

from sae_reasoning.behaviours.windows import Rows, response_rows
from sae_reasoning.records import Annotation, TokenOpportunity, TokenSpan, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, BehaviourRates, narrate
from sae_reasoning.tasks.search.world import Difficulty, sample_problem
from sae_reasoning.traces.align import Rollout


def narrated_traces(
    encode: Callable[[str], list[int]], num_problems: int, seed: int = 0
) -> list[Trace]:
    """Traces that the world's narrator wrote for both writers; every other problem to report on.

    Args:
        encode: Token ids of a text, one token a word, without special tokens.
        num_problems: Problems.
        seed: Of everything.
    """
    rates = {"base": BehaviourRates(backtrack=0.7), "rl": ALWAYS}
    rng = random.Random(seed)
    traces = []
    for number in range(num_problems):
        problem = sample_problem(rng, Difficulty(), grammar.REMARKS)
        for writer, behaviours in rates.items():
            narration = narrate(problem, behaviours, rng)
            offsets, start = [], 0
            for word in narration.text.split(" "):
                offsets.append((start, start + len(word)))
                start += len(word) + 1
            rollout = Rollout(
                encode(f"{grammar.BOS} {problem.prompt()}"),
                encode(narration.text),
                offsets,
                encode(grammar.EOS)[0],
                narration.text,
                truncated=False,
            )
            traces.append(
                rollout.annotated(
                    Problem(f"p{number:03d}", ("select", "report")[number % 2], problem.prompt()),
                    Annotation(narration.spans, narration.opportunities, None),
                    annotator="narrator",
                    writer=writer,
                    model=writer,
                    sample="000",
                )
            )
    return sorted(traces, key=lambda t: (t.split != "select", t.problem_id, t.writer))


def made_up_trace(
    problem: int,
    *,
    spans: list[tuple[str, int, int]],
    length: int = 40,
    split: str = "select",
    writer: str = "rl",
    token_ids: tuple[int, ...] | None = None,
) -> Trace:
    """A trace with three prompt tokens and spans at given tokens; each span was an opportunity."""
    return Trace(
        trace_id=f"{problem}/{writer}",
        problem_id=str(problem),
        split=split,
        writer=writer,
        model=writer,
        prompt="",
        text="x" * length,
        token_ids=token_ids or tuple(range(length)),
        num_prompt_tokens=3,
        correct=None,
        truncated=False,
        spans=tuple(TokenSpan(name, 0, 1, start, stop, "hand") for name, start, stop in spans),
        opportunities=tuple(TokenOpportunity(name, 0, start - 1, True) for name, start, _ in spans),
    )


def rows_of(traces: list[Trace]) -> Rows:
    """The rows that the cache keeps of traces: from the last prompt position on."""
    return response_rows(traces)
