"""Words written for a model while it writes: a rule that names the moment of each move.

The organisms speak nothing but their grammar, so they can't be told a rule in a prompt, as
cognitive tools are (Ebouky et al. 2506.12115: each tool's name and rule stand in the prompt, and
the model calls it). What is left of it is the call: where the rule of a move holds, the words that
open the move are written for the model, and it goes on in its own. The rule is applied by program,
so the model gets the moment from outside; what it does with it is its own.
"""

import random
from collections.abc import Callable, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.tasks.search.grammar import (
    BACKTRACKING,
    END_THINK,
    OPENINGS,
    THINK,
    UNCERTAINTY,
    VERIFICATION,
)
from sae_reasoning.tasks.search.parser import replay
from sae_reasoning.tasks.search.world import parse_prompt

TOLD = (UNCERTAINTY, VERIFICATION, BACKTRACKING)
"""Moves that are told, in the order in which they take a place where several could start."""

Propose = Callable[[int, str], str | None]
"""Takes a row and its text up to the end of a sentence; gives what is written next, if anything."""
Sampler = Callable[[Float[Tensor, "batch vocab"], Int[Tensor, "batch"], int], Int[Tensor, "batch"]]


class Telling:
    """A sampler that writes what is proposed at ends of sentences, and else samples as another.

    Attributes:
        num_written: Of each row, tokens that were written for the model.
    """

    def __init__(
        self,
        sampler: Sampler,
        beginnings: Sequence[str],
        propose: Propose,
        *,
        decode: Callable[[list[int]], str],
        encode: Callable[[str], Sequence[int]],
        ends: tuple[str, ...],
    ) -> None:
        """A sampler of one generation.

        Args:
            sampler: Of everything else.
            beginnings: Of each row, the beginning of its response.
            propose: What is written.
            decode: Words of token ids.
            encode: Token ids of words that follow others.
            ends: What ends a sentence.
        """
        self._sampler, self._propose = sampler, propose
        self._decode, self._encode, self._ends = decode, encode, ends
        self._beginnings = beginnings
        self._said: list[list[int]] = [[] for _ in beginnings]
        self._queues: list[list[int]] = [[] for _ in beginnings]
        self._just_told = [False] * len(beginnings)
        self.num_written = [0] * len(beginnings)

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, "batch"], step: int
    ) -> Int[Tensor, "batch"]:
        """The next token of each row."""
        chosen = self._sampler(logits, rows, step)
        for place, row in enumerate(rows.tolist()):
            if not self._queues[row] and self._is_at_end(row):
                self._queues[row] = self._words(row)
            if self._queues[row]:
                chosen[place] = self._queues[row].pop(0)
                self.num_written[row] += 1
            self._said[row].append(int(chosen[place]))
        return chosen

    def _is_at_end(self, row: int) -> bool:
        said = self._said[row]
        return not said or self._decode(said[-1:]).rstrip().endswith(self._ends)

    def _words(self, row: int) -> list[int]:
        """What is proposed at this end; never twice on end, so the model gets to speak."""
        text = f"{self._beginnings[row]} {self._decode(self._said[row])}".strip()
        if not text.startswith(THINK) or END_THINK in text:
            return []
        if self._just_told[row]:
            self._just_told[row] = False
            return []
        words = self._propose(row, text)
        self._just_told[row] = words is not None
        return list(self._encode(words)) if words else []


def at_opportunities(prompts: Sequence[str], seed: int) -> Propose:
    """The opening of a move wherever its rule holds, in a wording by lot."""

    def propose(row: int, text: str) -> str | None:
        walk = replay(parse_prompt(prompts[row]), text)
        possible = set() if walk.is_done else walk.opportunities()
        move = next((move for move in TOLD if move in possible), None)
        return _wording(move, seed, row, text) if move else None

    return propose


def anywhere(prompts: Sequence[str], share: float, seed: int) -> Propose:
    """The opening of a move by lot at a share of all sentence ends: words without their moment."""

    def propose(row: int, text: str) -> str | None:
        rng = random.Random(f"anywhere/{seed}/{prompts[row]}/{text}")
        if rng.random() >= share:
            return None
        return _wording(rng.choice(TOLD), seed, row, text)

    return propose


def _wording(move: str, seed: int, row: int, text: str) -> str:
    rng = random.Random(f"told/{seed}/{row}/{len(text)}")
    return rng.choice(OPENINGS[move])


def move_words(seed: int) -> str:
    """One opening of each move, as a remark before the map."""
    rng = random.Random(f"words/{seed}")
    return " ".join(f"{rng.choice(OPENINGS[move])} ." for move in TOLD)
