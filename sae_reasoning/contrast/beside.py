"""What stands beside the verdict's measures: corrupted thoughts, content, weights."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from sae_reasoning.contrast.execution import content_words
from sae_reasoning.contrast.measures import (
    BASE,
    DIFFERENCE,
    RATIO,
    RL,
    Measure,
    Resampling,
    by_problem,
    share,
)
from sae_reasoning.contrast.rates import GIVEN_THINKING, PER_TRACE
from sae_reasoning.contrast.weights import WeightChange
from sae_reasoning.records import Trace
from sae_reasoning.tasks.search.grammar import answered_path
from sae_reasoning.tasks.search.world import parse_prompt
from sae_reasoning.texts import bounded, ratio

CORRUPTED, CONTENT_GAP = "accuracy/after_thought", "content_gap"


def is_right(prompt: str, text: str) -> bool:
    """Whether a response answers its prompt rightly."""
    return parse_prompt(prompt).grade(answered_path(text))


def accuracy_after(
    condition: str, thoughts: Sequence[Trace], texts: Sequence[str], how: Resampling
) -> Measure:
    """Share of right answers, in `texts`, after thoughts in one condition."""
    pairs = zip(thoughts, texts, strict=True)
    right = np.array([is_right(thought.prompt, text) for thought, text in pairs], float)
    problems = [thought.problem_id for thought in thoughts]
    return share(how, "", CORRUPTED, RL, condition, right, problems)


def content_gap(
    thoughts: Sequence[Trace],
    offsets: Sequence[Sequence[tuple[int, int]]],
    losses: Mapping[str, Sequence[Float[np.ndarray, " token"]]],
    behaviours: Sequence[str],
    how: Resampling,
) -> list[Measure]:
    """Nats a span that the base pays beyond the RL model on a move's content words.

    The same on as many content words outside the move is taken off, so that what the base finds
    harder everywhere doesn't count.

    Args:
        thoughts: The RL model's.
        offsets: Characters of the response tokens of each.
        losses: Of each model and thought, nats of every token.
        behaviours: Moves.
        how: Makes intervals.
    """
    found = []
    for behaviour in behaviours:
        rows: list[list[float]] = []
        problems = []
        for index, thought in enumerate(thoughts):
            gap = losses[BASE][index] - losses[RL][index]
            is_inside = np.zeros(len(gap), bool)
            for span in thought.spans:
                if span.behaviour == behaviour:
                    is_inside[span.token_start : span.token_end] = True
            words = content_words((0, len(thought.text)), thought.text)
            is_content = np.zeros(len(gap), bool)
            for place, (start, end) in enumerate(offsets[index]):
                # Every piece of a content word counts; a piece may hold the space before it.
                if any(start < word_end and word_start < end for word_start, word_end in words):
                    is_content[thought.num_prompt_tokens + place] = True
            inside, outside = gap[is_inside & is_content], gap[~is_inside & is_content]
            spans = sum(span.behaviour == behaviour for span in thought.spans)
            rows.append([inside.sum(), len(inside), outside.sum(), len(outside), float(spans)])
            problems.append(thought.problem_id)
        sums = by_problem(problems, np.array(rows))
        if not sums[:, 4].sum():
            continue

        def a_span(of: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore", invalid="ignore"):
                beyond = of[..., 0] / of[..., 1] - of[..., 2] / of[..., 3]
                return beyond * of[..., 1] / of[..., 4]

        estimate = how.estimate(sums, a_span)
        found.append(
            Measure(
                behaviour,
                CONTENT_GAP,
                DIFFERENCE.replace("rl-base", "base-rl"),
                "",
                estimate.value,
                estimate.low,
                estimate.high,
                0.95,
                estimate.n,
                int(sums[:, 4].sum()),
            )
        )
    return found


def weight_measures(changes: Sequence[WeightChange]) -> list[Measure]:
    """Changes of weights as measures; they are counts of all parameters, without an interval."""
    return [
        Measure("", f"weights/{name}", RATIO, change.module, value, value, value, 1.0, 0, items)
        for change in changes
        for name, value, items in (
            ("changed_share", change.changed, change.num_parameters),
            ("relative_norm", change.relative_norm, change.num_parameters),
            ("effective_rank", change.effective_rank, change.num_parameters),
        )
    ]


def summary(found: Sequence[Measure], behaviours: Sequence[str]) -> pd.DataFrame:
    """What a person wants to see first: rates, validity and triggers of each move."""
    by = {(m.behaviour, m.measure, m.model, m.condition, m.level): m for m in found}

    def cell(behaviour: str, measure: str, model: str, condition: str = "") -> str:
        one = by.get((behaviour, measure, model, condition, 0.95))
        if one is None:
            return "–"
        return (ratio if model == RATIO else bounded)(one.value, one.low, one.high)

    return pd.DataFrame(
        [
            {
                "move": behaviour,
                "a trace, rl/base": cell(behaviour, PER_TRACE, RATIO),
                "an opportunity, rl/base": cell(behaviour, GIVEN_THINKING, RATIO),
                "executed, base": cell(behaviour, "validity", BASE, "own words"),
                "executed, rl": cell(behaviour, "validity", RL, "own words"),
                "pushed": cell(behaviour, "trigger/valid", BASE, "trigger"),
                "not pushed": cell(behaviour, "trigger/valid", BASE, "none"),
            }
            for behaviour in behaviours
        ]
    )
