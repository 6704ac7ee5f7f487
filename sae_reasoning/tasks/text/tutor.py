"""Lessons on one problem in natural text: a wrong attempt, a critique of it, and a right attempt.

After critique fine-tuning on one problem (Wang et al. 2506.03295), whose critics are stronger
models. Here nobody stronger is asked: the grader says which of the model's own attempts are wrong,
the critique is a template, and the right attempt is the model's own.
"""

import random
from collections.abc import Callable, Sequence

from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt, ResponseFormat
from sae_reasoning.tasks.text.sentences import sentences

CRITIQUES, RIGHT, SHUFFLED = "critiques", "right attempts", "shuffled critiques"

TEMPLATES = (
    ("Wait, let me check this.", "That is not right, so I need to start again."),
    ("Let me check that answer.", "It is wrong. I will try another way."),
    ("Hold on, is this correct?", "No, there is a mistake in it. Let me do it again."),
)
"""What stands between a wrong attempt and a right one: a check, and what it finds."""


class TextTutor:
    """Writes critiques of wrong attempts, and as controls right attempts and shuffled critiques.

    Right attempts alone show what fine-tuning on a model's own right answers does; a shuffled
    critique has the same sentences, in another order.

    Args:
        form: How the model lays out its responses.
    """

    kinds: tuple[str, ...] = (CRITIQUES, RIGHT, SHUFFLED)
    need_attempts = frozenset(kinds)

    def __init__(self, form: ResponseFormat) -> None:
        self._form = form

    def choose(
        self,
        problems: Sequence[Problem],
        attempts: Callable[[Problem], Sequence[Attempt]],
        seed: int,
    ) -> Problem | None:
        """The first problem with a right and a wrong attempt, both of which came to an end."""
        for problem in problems:
            if {one.correct for one in _ended(attempts(problem))} >= {True, False}:
                return problem
        return None

    def lesson(
        self, problem: Problem, attempts: Sequence[Attempt], kind: str, rng: random.Random
    ) -> str:
        """One example response.

        Args:
            problem: The problem.
            attempts: At it, a right and a wrong one among them.
            kind: One of `kinds`.
            rng: Draws attempts, template and order.
        """
        ended = _ended(attempts)
        wrong = rng.choice([one.text for one in ended if one.correct is False])
        right = rng.choice([one.text for one in ended if one.correct])
        check, finding = rng.choice(TEMPLATES)
        if kind == RIGHT:
            return right
        form = self._form
        failed, said = form.split(wrong)
        thought, answer = form.split(right)
        mended = thought.removeprefix(form.thinking_prefix).lstrip()
        parts = [failed.rstrip(), said.strip(), f"{check} {finding}", mended.rstrip()]
        if kind == SHUFFLED:
            body = "\n\n".join(filter(None, parts)).removeprefix(form.thinking_prefix)
            mixed = [body[start:end] for start, end in sentences(body)]
            rng.shuffle(mixed)
            parts = [f"{form.thinking_prefix}{' '.join(mixed)}"]
        text = "\n\n".join(filter(None, parts))
        return f"{text}\n{form.thinking_suffix}{answer}" if answer else text


def _ended(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [one for one in attempts if not one.truncated]
