"""Openings mined from annotated text: the words with which models begin a behaviour.

1. Sentences of the select split, of both writers, are divided by their wording: one in three is
   held out, the others select.
2. The first words of the selecting sentences are a prefix tree. From two words or marks on it is
   descended until a prefix is precise, as far as five; so each opening is the shortest that tells.
   A prefix counts that begins spans of several wordings, enough of either writer's: the base's own
   words are found where it makes the behaviour rarely.
3. Precision and coverage are those on held-out sentences.

No opening is the beginning of another, so their probabilities sum to that of beginning with any.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sae_reasoning.records import BASE, MODELS, RL, SELECT, Trace
from sae_reasoning.tasks.protocol import Opening
from sae_reasoning.tasks.text.sentences import sentences

_PIECE = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
"""A word or a mark."""
_SHORTEST, _LONGEST = 2, 5
_PRECISE = 0.8
"""Share of the sentences with a prefix that must be the behaviour."""
_LEAST, _LEAST_SHARE = 3, 0.02
"""Different spans of one writer, and share of all of its, that must begin with a prefix."""
_MOST = 16
"""Openings of a behaviour."""
_HELD_OUT = 3
"""One wording in so many measures, instead of selecting."""


class _Begun(NamedTuple):
    """The beginning of a sentence.

    Attributes:
        writer: Who wrote it.
        behaviour: Whose span starts with it, or "".
        prefixes: Its first word, first two, and so on; what is left after each isn't empty.
        wording: Of the sentence.
    """

    writer: str
    behaviour: str
    prefixes: tuple[str, ...]
    wording: str

    @property
    def is_held_out(self) -> bool:
        """Whether it measures, instead of selecting."""
        digest = hashlib.sha256(self.wording.encode("utf-8", "surrogatepass")).digest()
        return digest[0] % _HELD_OUT == 0


@dataclass(frozen=True)
class MinedOpenings:
    """Openings of behaviours, the commonest first.

    Attributes:
        mined: All of them.
    """

    mined: tuple[Opening, ...]
    is_closed = False

    def of(self, behaviour: str) -> tuple[str, ...]:
        """Every opening; none where too few spans were seen."""
        return tuple(one.text for one in self.mined if one.behaviour == behaviour)

    def usual(self, behaviour: str) -> tuple[str, ...]:
        """The same: all of them are words that a model of the pair begins with."""
        return self.of(behaviour)


def mine_openings(traces: Sequence[Trace], behaviours: Sequence[str]) -> MinedOpenings:
    """Openings of some behaviours, from the select split of annotated traces.

    Where no prefix is precise, the most precise one that is common enough is taken; its precision
    tells.

    Args:
        traces: Of both writers; those of the report split are left alone.
        behaviours: Whose openings.
    """
    begun = [one for trace in traces if trace.split == SELECT for one in _sentences(trace)]
    selecting = [one for one in begun if not one.is_held_out]
    held_out = [one for one in begun if one.is_held_out]
    return MinedOpenings(
        tuple(
            _measured(behaviour, text, held_out)
            for behaviour in behaviours
            for text in _selected(behaviour, selecting)
        )
    )


def _sentences(trace: Trace) -> Iterator[_Begun]:
    starts = {span.char_start: span.behaviour for span in trace.spans}
    whole = sentences(trace.text)
    within = [
        (start, min((end for first, end in whole if first < start < end), default=start))
        for start in starts.keys() - {start for start, _ in whole}
    ]
    for start, end in [*whole, *within]:
        text = trace.text[start:end]
        pieces = list(_PIECE.finditer(text))[:-1][:_LONGEST]
        yield _Begun(
            trace.writer,
            starts.get(start, ""),
            tuple(text[: piece.end()] for piece in pieces),
            text.lower(),
        )


def _selected(behaviour: str, begun: Sequence[_Begun]) -> list[str]:
    """The shortest precise prefixes, the commonest first."""
    spans = Counter(one.writer for one in begun if one.behaviour == behaviour)
    others: Counter[str] = Counter()
    own: defaultdict[str, Counter[str]] = defaultdict(Counter)  # By prefix and writer.
    wordings: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    children: defaultdict[str, set[str]] = defaultdict(set)
    for one in begun:
        for parent, prefix in zip(("", *one.prefixes), one.prefixes, strict=False):
            if one.behaviour == behaviour:
                own[prefix][one.writer] += 1
                wordings[prefix, one.writer].add(one.wording)
                children[parent].add(prefix)
            else:
                others[prefix] += 1

    def share(prefix: str) -> float:
        """Of a writer's spans, of the writer that says it more."""
        return max(own[prefix][model] / max(spans[model], 1) for model in MODELS)

    def precision(prefix: str) -> float:
        right = own[prefix].total()
        return right / (right + others[prefix])

    common: list[str] = []
    precise: list[str] = []

    def descend(prefix: str, length: int) -> None:
        for child in sorted(children[prefix]):
            if (
                max(len(wordings[child, model]) for model in MODELS) < _LEAST
                or share(child) < _LEAST_SHARE
            ):
                continue
            is_long = length + 1 >= _SHORTEST
            if is_long:
                common.append(child)
            if is_long and precision(child) >= _PRECISE:
                precise.append(child)
            else:
                descend(child, length + 1)

    descend("", 0)
    best = sorted(common, key=lambda prefix: (-precision(prefix), -share(prefix), prefix))
    whole = [one for one in precise if not any(one != o and one.startswith(o) for o in precise)]
    return sorted(whole or best[:1], key=lambda prefix: (-share(prefix), prefix))[:_MOST]


def _measured(behaviour: str, text: str, begun: Sequence[_Begun]) -> Opening:
    said = [one for one in begun if text in one.prefixes]
    right = Counter(one.writer for one in said if one.behaviour == behaviour)
    spans = Counter(one.writer for one in begun if one.behaviour == behaviour)
    return Opening(
        behaviour=behaviour,
        text=text,
        precision=_over(right.total(), len(said)),
        coverage=_over(right.total(), spans.total()),
        coverage_base=_over(right[BASE], spans[BASE]),
        coverage_rl=_over(right[RL], spans[RL]),
        num_sentences=len(said),
        num_spans=spans.total(),
    )


def _over(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
