"""A behaviour as a model carries it out after a start, and what stands in for it.

It is carried out to the end of the first sentence that has *content*: "Wait." is none yet, and what
a model makes of the behaviour is what it says next. Content are words that are rare among the
sentences which begin this behaviour, and whatever has a digit; common words open the behaviour or
are any sentence's.

*In words of its own* a model carries a behaviour out by rejection among its own samples, where it
makes the behaviour often enough for that; elsewhere an opening is written for it, drawn from its
own distribution.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sae_reasoning.contrast.onsets import labels_at_starts
from sae_reasoning.records import MODELS, RL, SELECT, SentenceEnd, Trace
from sae_reasoning.tasks.annotations import Unlabelled
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import Start, Task

_FEW = 2
"""First words of a sentence that count as its opening where none is known."""
_COMMON = 0.1
"""Share of a behaviour's sentences with a word, above which the word is no content."""
_MOST = 3
"""Sentences after which a behaviour has been carried out, whatever they say."""
_ALIKE = 0.5
"""Share of a sentence's content, above which two sentences say the same."""
_NEARLY_ALWAYS, _ENOUGH = 0.8, 5
"""Share of spans with an opening that go on with the same word, which then is part of it; and how
many of a writer's it takes to say so."""
_WORD = re.compile(r"\w+")
_NEXT = re.compile(r"\s*\S+(?=\s+\S)")
"""The next word, if it isn't the last."""


@dataclass(frozen=True)
class Sentence:
    """What follows a start, until the behaviour has been carried out.

    Attributes:
        ids: Tokens after the start.
        response: The whole response, up to there.
        said: The sentence, or the few that it takes to say something.
        ended: Whether the response ended with it.
        truncated: Whether it was cut before the behaviour was carried out: whoever goes on would
            carry it out.
    """

    ids: tuple[int, ...]
    response: str
    said: str
    ended: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Quote:
    """What the RL model says where a span begins, until the behaviour has been carried out.

    Attributes:
        behaviour: Of the span.
        problem_id: Answered by the response.
        before: The response up to there.
        said: The sentence, or the few that it takes to say something.
    """

    behaviour: str
    problem_id: str
    before: str
    said: str


@dataclass(frozen=True)
class CarriedOut:
    """Where a behaviour has been carried out: a rule for texts that are being written.

    Attributes:
        sentence_end: Where a sentence ends.
        common: Words that are no content.
    """

    sentence_end: SentenceEnd
    common: frozenset[str]

    @property
    def marks(self) -> str:
        """Characters; a text without any of them has not ended."""
        return self.sentence_end.marks

    def find(self, text: str, *, is_last: bool) -> int | None:
        """One past the end of the first sentence with content, or of the third.

        Args:
            text: So far.
            is_last: Whether nothing follows.
        """
        end = 0
        for _ in range(_MOST):
            more = self.sentence_end.find(text[end:], is_last=is_last)
            if more is None:
                return None
            end += more
            if self.content(text[:end]):
                break
        return end

    def content(self, said: str) -> frozenset[str]:
        """Words of a text that are content, in lower case."""
        words = set(_WORD.findall(said.lower()))
        return frozenset(
            word for word in words if word not in self.common or any(map(str.isdigit, word))
        )

    def is_other(self, said: str, own: Iterable[str]) -> bool:
        """Whether a text has content, and another than each of some texts."""
        content = self.content(said)
        shared = (len(content & self.content(one)) for one in own)
        return bool(content) and all(count <= _ALIKE * len(content) for count in shared)


def carried_out(task: Task, traces: Iterable[Trace], behaviours: Sequence[str]) -> CarriedOut:
    """The rule by which behaviours have been carried out, from annotated traces.

    Args:
        task: Whose sentences.
        traces: Those that the RL model wrote on the select split count.
        behaviours: Whose spans, and whose openings: however rare one is, it says nothing yet.
    """
    total: Counter[str] = Counter()
    having: Counter[tuple[str, str]] = Counter()
    for behaviour, trace, rest in _spans(traces, behaviours):
        if trace.split != SELECT:
            continue
        total[behaviour] += 1
        words = {*_WORD.findall(rest[: task.sentence_end.find(rest, is_last=True)].lower())}
        having.update((behaviour, word) for word in words)
    common = {
        word
        for (behaviour, word), count in having.items()
        if count > max(_COMMON * total[behaviour], 1)
    }
    for behaviour in behaviours:
        for opening in task.openings.of(behaviour) if task.openings else ():
            common |= {*_WORD.findall(opening.lower())}
    return CarriedOut(task.sentence_end, frozenset(common))


def are_made(
    task: Task, starts: Sequence[Start], sentences: Sequence[Sentence]
) -> list[bool | None]:
    """Whether the annotator finds the behaviour of its start where each sentence begins.

    None where it could not label the response.
    """
    responses = [
        Unlabelled(start.problem, one.response, not one.ended)
        for start, one in zip(starts, sentences, strict=True)
    ]
    labels = labels_at_starts(task.annotator, starts, responses)
    return [
        None if label is None else start.behaviour == label
        for start, label in zip(starts, labels, strict=True)
    ]


def own_words(
    tries: Sequence[Sequence[Sentence]], made: Sequence[Sequence[bool | None]], least: float
) -> list[list[Sentence]]:
    """At each start those of a model's samples that are the behaviour, in their order.

    None anywhere where it makes the behaviour too seldom: what annotators take for the behaviour
    is then as likely to be something else.

    Args:
        tries: Samples at each start.
        made: Which of them are the behaviour; None where that isn't known.
        least: Share of all samples of which it is known that must be.
    """
    known = [is_it for row in made for is_it in row if is_it is not None]
    if not known or sum(known) < least * len(known):
        return [[] for _ in tries]
    return [
        [one for one, is_it in zip(own, row, strict=True) if is_it]
        for own, row in zip(tries, made, strict=True)
    ]


def quotes(rule: CarriedOut, traces: Iterable[Trace], behaviours: Sequence[str]) -> list[Quote]:
    """What the RL model says where spans begin; nothing twice.

    Args:
        rule: Where a behaviour has been carried out.
        traces: Of any writer, annotated.
        behaviours: Of which spans.
    """
    found: dict[Quote, None] = {}
    for behaviour, trace, rest in _spans(traces, behaviours):
        before = trace.text[: len(trace.text) - len(rest)].rstrip()
        said = rest[: rule.find(rest, is_last=True)].strip()
        found[Quote(behaviour, trace.problem_id, before, said)] = None
    return list(found)


def whole_openings(
    task: Task, traces: Iterable[Trace], behaviours: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """By behaviour, openings with the words that nearly always follow them, to be written for it.

    "Hold on" alone leaves a model free to go on with something else; what follows it in four of
    five spans of every writer is part of how the behaviour opens.

    Args:
        task: Whose openings.
        traces: Of both writers, annotated; those of the select split count.
        behaviours: Whose openings.
    """
    spans: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for trace in traces:
        if trace.split == SELECT:
            for span in trace.spans:
                rest = trace.text[span.char_start :]
                said = rest[: task.sentence_end.find(rest, is_last=True)]
                spans[span.behaviour, trace.writer].append(said.strip())
    return {
        behaviour: tuple(
            dict.fromkeys(
                _extended(opening, [spans[behaviour, model] for model in MODELS])
                for opening in (task.openings.of(behaviour) if task.openings else ())
            )
        )
        for behaviour in behaviours
    }


def _extended(opening: str, said: Sequence[Sequence[str]]) -> str:
    """An opening with what follows it nearly always; the last word of a sentence stays out.

    Args:
        opening: Where spans begin so.
        said: Sentences, by writer.
    """
    while True:
        following = Counter[str]()
        for of_writer in said:
            next_words = Counter(
                found.group()
                for one in of_writer
                if one.lower().startswith(opening.lower())
                and (found := _NEXT.match(one, len(opening)))
            )
            total = sum(one.lower().startswith(opening.lower()) for one in of_writer)
            if total >= _ENOUGH:
                word, count = next_words.most_common(1)[0] if next_words else ("", 0)
                if count < _NEARLY_ALWAYS * total:
                    return opening
                following[word] += 1
        if len(following) != 1:
            return opening
        opening += next(iter(following))


def opening_of(known: Sequence[str], said: str) -> str:
    """The words that open a behaviour in a sentence: a known opening, else the first two."""
    said = said.strip()
    own = [opening for opening in known if said.lower().startswith(opening.lower())]
    longest = max(map(len, own), default=0)
    return said[:longest] if longest else " ".join(said.split()[:_FEW])


def displaced(
    start: Start,
    found: Sequence[Quote],
    rule: CarriedOut,
    own: Iterable[str],
    count: int,
    seed: int,
) -> list[str]:
    """Sentences of the same behaviour on the same problem: from other places, other content.

    None from further along in a response, nor any that holds the right answer: what has been found
    out there would be handed over.

    Args:
        start: Where it will stand.
        found: Quotes to draw from.
        rule: Says what is content.
        own: What the RL model says at this place.
        count: Of them at most; they differ.
        seed: Of the draw.
    """
    own, before = list(own), start.text.rstrip()
    fit = {
        quote.said
        for quote in found
        if (quote.behaviour, quote.problem_id) == (start.behaviour, start.problem.problem_id)
        and quote.before != before
        and len(quote.before) <= len(before)
        and not holds_answer(quote.said, start.problem)
        and rule.is_other(quote.said, own)
    }
    rng = random.Random(f"displaced/{seed}/{start.key}")
    return rng.sample(sorted(fit), min(count, len(fit)))


def holds_answer(said: str, problem: Problem) -> bool:
    """Whether a text holds a problem's right answer, as it is written in the reference.

    Part of another number or word it is not.
    """
    answer = problem.right_answer
    inside = rf"(?<!\w)(?<!\d[.,]){re.escape(answer)}(?!\w)(?![.,]\d)"
    return bool(answer) and re.search(inside, said, re.IGNORECASE) is not None


def foreign(start: Start, found: Sequence[Quote], count: int, seed: int) -> list[str]:
    """Sentences of the same behaviour on other problems; arguments are those of `displaced`."""
    by_problem: defaultdict[str, list[str]] = defaultdict(list)
    for quote in found:
        if quote.behaviour == start.behaviour and quote.problem_id != start.problem.problem_id:
            by_problem[quote.problem_id].append(quote.said)
    rng = random.Random(f"foreign/{seed}/{start.key}")
    drawn = rng.sample(sorted(by_problem), min(count, len(by_problem)))
    return [rng.choice(by_problem[problem]) for problem in drawn]


def _spans(traces: Iterable[Trace], behaviours: Sequence[str]) -> Iterator[tuple[str, Trace, str]]:
    """Behaviour, trace and the text from there on, of each span that the RL model wrote."""
    for trace in traces:
        if trace.writer == RL:
            for span in trace.spans:
                if span.behaviour in behaviours:
                    yield span.behaviour, trace, trace.text[span.char_start :]
