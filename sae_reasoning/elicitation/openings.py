"""Openings of behaviours, written for a model while it writes: where, and which.

What is left of cognitive tools (Ebouky et al. 2506.12115: each tool's name and rule stand in the
prompt, and the model calls it) for models that read no instructions is the call: the words that
open a behaviour are written for the model, and it goes on in its own. Where the task knows by a
rule when a behaviour is called for, the rule says where; else they come as often as the RL model
starts the behaviour. So the model gets the moment, or the rate, from outside; what it does with it
is its own.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.elicitation.conditions import Choose
from sae_reasoning.records import RL, SELECT, Trace
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Listen, Openings, ResponseFormat

Sampler = Callable[[Float[Tensor, "batch vocab"], Int[Tensor, "batch"], int], Int[Tensor, "batch"]]


@dataclass(frozen=True)
class Words:
    """A model's words and tokens.

    Attributes:
        decode: Text of token ids.
        encode: Token ids of words that follow others, given their ids.
    """

    decode: Callable[[list[int]], str]
    encode: Callable[[str, Sequence[int]], Sequence[int]]


@dataclass
class OpeningWriter:
    """Which tokens are written for one response, as it grows; within its chain of thought only.

    After an opening the model has a sentence of its own before another may be written.

    Attributes:
        form: Says where the chain of thought begins and ends.
        listen: A streaming annotator of the response.
        choose: Takes the behaviours that could start and the text so far; gives words, or None.
        words: Of the model.
        said: Token ids so far; at first those that the response begins with.
        num_ends: Ends of sentences at which words could be written.
        num_openings: Ends at which they were.
        num_written: Tokens of them that the response holds.
    """

    form: ResponseFormat
    listen: Listen
    choose: Callable[[frozenset[str], str], str | None]
    words: Words
    said: list[int] = field(default_factory=list)
    num_ends: int = 0
    num_openings: int = 0
    num_written: int = 0
    _queue: list[int] = field(default_factory=list)
    _unheard: int = 0
    _has_just_opened: bool = False

    def __post_init__(self) -> None:
        self.said = list(self.said)
        self._hear()

    def next(self) -> int | None:
        """The token that is written next; None where the model writes it."""
        return self._queue[0] if self._queue else None

    def add(self, token_id: int) -> None:
        """The token that was written."""
        self.said.append(token_id)
        if self._queue:
            self._queue.pop(0)
            self.num_written += 1
        if not self._queue:
            self._hear()

    def _hear(self) -> None:
        possible = self.listen(self.words.decode(self.said[self._unheard :]))
        if possible is None:
            return
        self._unheard = len(self.said)
        text = self.words.decode(self.said)
        if not self._thinks(text):
            return
        if self._has_just_opened:
            self._has_just_opened = False
            return
        self.num_ends += 1
        if chosen := self.choose(possible, text):
            self._queue = list(self.words.encode(chosen, self.said))
            self.num_openings += 1
            self._has_just_opened = True

    def _thinks(self, text: str) -> bool:
        form = self.form
        is_over = bool(form.thinking_suffix) and form.thinking_suffix in text
        return text.lstrip().startswith(form.thinking_prefix) and not is_over


def forcing_openings(writer_of: Callable[[int], OpeningWriter]) -> Callable[[Sampler], Sampler]:
    """Makes of a sampler one that writes openings, and else samples as the other does.

    Args:
        writer_of: Makes the writer of a row.
    """

    def wrap(sampler: Sampler) -> Sampler:
        writers: dict[int, OpeningWriter] = {}

        def sample(
            logits: Float[Tensor, "batch vocab"], rows: Int[Tensor, "batch"], step: int
        ) -> Int[Tensor, "batch"]:
            chosen = sampler(logits, rows, step)
            for place, row in enumerate(rows.tolist()):
                if row not in writers:
                    writers[row] = writer_of(row)
                token = writers[row].next()
                if token is not None:
                    chosen[place] = token
                writers[row].add(int(chosen[place]))
            return chosen

        return sample

    return wrap


def replayed(writer: OpeningWriter, token_ids: Sequence[int]) -> OpeningWriter:
    """The writer of a response at its end; what it wrote follows from the tokens."""
    for token_id in token_ids:
        writer.add(token_id)
    return writer


def where_called_for(openings: Openings, behaviours: Sequence[str], seed: int) -> Choose:
    """The opening of a behaviour wherever it could start, in a random wording.

    Args:
        openings: Of behaviours.
        behaviours: To be opened; of several that could start the first is.
        seed: Of wordings.
    """

    def choose(problem: Problem, sample: int, possible: frozenset[str], text: str) -> str | None:
        behaviour = next((one for one in behaviours if one in possible), None)
        if behaviour is None:
            return None
        return _rng("opening", seed, problem, sample, text).choice(openings.usual(behaviour))

    return choose


def anywhere(openings: Openings, behaviours: Sequence[str], share: float, seed: int) -> Choose:
    """The opening of a random behaviour at a share of all ends of sentences: no right moment."""

    def choose(problem: Problem, sample: int, possible: frozenset[str], text: str) -> str | None:
        rng = _rng("anywhere", seed, problem, sample, text)
        if rng.random() >= share:
            return None
        return rng.choice(openings.usual(rng.choice(list(behaviours))))

    return choose


def at_rates(openings: Openings, rates: Mapping[str, float], seed: int) -> Choose:
    """The opening of each behaviour at a rate of its own, at random ends of sentences."""

    def choose(problem: Problem, sample: int, possible: frozenset[str], text: str) -> str | None:
        rng = _rng("rate", seed, problem, sample, text)
        drawn = rng.random()
        for behaviour, rate in rates.items():
            if behaviour in possible and drawn < rate:
                return rng.choice(openings.usual(behaviour))
            drawn -= rate
        return None

    return choose


def other_words(choose: Choose, sentences: Sequence[str], seed: int) -> Choose:
    """As many words of other sentences, wherever another choice would write an opening.

    Args:
        choose: Says where, and how many.
        sentences: In which no behaviour starts.
        seed: Of which sentence.
    """

    def other(problem: Problem, sample: int, possible: frozenset[str], text: str) -> str | None:
        opening = choose(problem, sample, possible, text)
        if opening is None:
            return None
        words = _rng("other", seed, problem, sample, text).choice(sentences).split()
        return " ".join(words[: len(opening.split())])

    return other


def rl_rates(traces: Sequence[Trace], behaviours: Sequence[str]) -> dict[str, float]:
    """Share of its opportunities that the RL model takes, by behaviour, on the select split."""
    own = [o for t in traces if (t.split, t.writer) == (SELECT, RL) for o in t.opportunities]
    found = {}
    for behaviour in behaviours:
        taken = [one.taken for one in own if one.behaviour == behaviour]
        if any(taken):
            found[behaviour] = sum(taken) / len(taken)
    return found


def plain_sentences(
    traces: Sequence[Trace], sentences: Callable[[str], list[tuple[int, int]]]
) -> list[str]:
    """Sentences of the RL model's select traces in which no behaviour starts."""
    found = []
    for trace in traces:
        if (trace.split, trace.writer) != (SELECT, RL):
            continue
        starts = [span.char_start for span in trace.spans]
        for start, end in sentences(trace.text):
            if not any(start <= place < end for place in starts):
                found.append(trace.text[start:end])
    return found


def _rng(what: str, seed: int, problem: Problem, sample: int, text: str) -> random.Random:
    return random.Random(f"{what}/{seed}/{problem.problem_id}/{sample}/{text}")
