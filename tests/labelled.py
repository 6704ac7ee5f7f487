"""Responses in words that a classifier can learn to label, written here."""

import random
from typing import Any

from sae_reasoning.records import Span
from sae_reasoning.traces.fitted import LabelledText

BACKTRACKING, VERIFICATION = "backtracking", "verification"
BEHAVIOURS = [BACKTRACKING, VERIFICATION]
_SAID = {
    BACKTRACKING: (
        "Hmm, {n} was a wrong turn, so I leave it.",
        "That road ends at {n}, back to where I was.",
        "Wait, {n} leads nowhere.",
    ),
    VERIFICATION: (
        "Let me test whether {n} holds.",
        "Is {n} what was asked for?",
        "To be safe I recompute {n}.",
    ),
    "": (
        "So there are {n} boxes.",
        "Then {n} is added to it.",
        "The sum becomes {n}.",
        "Each of them costs {n}.",
    ),
}


def labelled_texts(num_problems: int, seed: int = 0) -> list[LabelledText]:
    """A response a problem, whose behaviours are known by how sentences are made."""
    rng = random.Random(seed)
    found = []
    for number in range(num_problems):
        text, spans = "", []
        for _ in range(8):
            behaviour = rng.choice(["", "", *BEHAVIOURS])
            sentence = rng.choice(_SAID[behaviour]).format(n=rng.randrange(100))
            start = len(text) + bool(text)
            text += f" {sentence}" if text else sentence
            if behaviour:
                spans.append(Span(behaviour, start, len(text)))
        found.append(LabelledText(f"q{number}", text, tuple(spans)))
    return found


def as_rows(texts: list[LabelledText], writer: str = "rl") -> list[dict[str, Any]]:
    """The same as rows that annotation tools export."""
    return [
        {
            "problem_id": one.problem_id,
            "writer": writer,
            "prompt": f"How many boxes are there, {one.problem_id}?",
            "text": one.text,
            "label": [[s.char_start, s.char_end, s.behaviour] for s in one.spans],
        }
        for one in texts
    ]
