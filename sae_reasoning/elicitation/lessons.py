"""Lessons on one select problem, and the fine-tuning on them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sae_reasoning.config import ElicitConfig, PretrainConfig
from sae_reasoning.elicitation.trainings import WARMUP, Learner
from sae_reasoning.organisms.pretrain import learn
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Attempt, Tutor


@dataclass(frozen=True)
class Lessons:
    """What there is to learn from one problem.

    Attributes:
        tutor: Writes lessons.
        problem: Which one; None where the tutor found none.
        attempts: At a problem; sampled once.
    """

    tutor: Tutor
    problem: Problem | None
    attempts: Callable[[Problem], Sequence[Attempt]]

    def draw(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """The prompt, and one lesson of a kind."""
        assert self.problem
        attempts = self.attempts(self.problem)
        return self.problem.prompt, self.tutor.lesson(self.problem, attempts, kind, rng)

    def lacks(self, kind: str, reads: Callable[[str], bool], seed: int) -> tuple[str, ...]:
        """What is missing for one kind of lesson.

        Args:
            kind: Of lesson.
            reads: Whether the base's tokenizer has all of some words.
            seed: Of the lesson that is looked at.
        """
        if self.problem is None:
            return ("problem with right and wrong attempts",)
        _, text = self.draw(kind, random.Random(seed))
        return () if reads(text) else ("tokens for its lessons",)


def teach(
    learner: Learner,
    own: ElicitConfig,
    rate: float,
    draw: Callable[[random.Random], tuple[str, str]],
    encode_prompt: Callable[[str], list[int]],
    encode_response: Callable[[str], list[int]],
) -> Iterator[tuple[int, int]]:
    """Fine-tune on lessons; steps done and tokens read, after every number that may be chosen.

    Args:
        learner: What is trained, in place.
        own: Options.
        rate: Learning rate.
        draw: A prompt and a lesson.
        encode_prompt: Its tokens.
        encode_response: The lesson's, with the token that ends it.
    """
    steps, num_tokens = max(own.critique_steps), 0

    def counted(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
        def count(text: str) -> list[int]:
            nonlocal num_tokens
            token_ids = encode(text)
            num_tokens += len(token_ids)
            return token_ids

        return count

    config = PretrainConfig(
        steps=steps,
        batch_size=own.critique_batch,
        lr=rate,
        warmup=WARMUP,
        checkpoint_every=steps,
    )
    for progress in learn(
        learner.module,
        config,
        lambda rng, _progress: draw(rng),
        learner.run(own.seed),
        encode_prompt=counted(encode_prompt),
        encode_response=counted(encode_response),
        yield_every=1,
    ):
        if progress.step in own.critique_steps:
            learner.module.eval()
            yield progress.step, num_tokens
            learner.module.train()
    learner.state_path.unlink(missing_ok=True)
