"""A latent's own words put where they mean nothing: does it fire there as in the behaviour?

After Ma et al. (2601.05679), who put a feature's top tokens, pairs and triples of tokens into text
without reasoning. Four things are added: one token alone is told from two or three, so that a
latent of a pair of words isn't taken for one of a word; their effect is compared with the same
injection's on latents of like frequency that weren't selected; which of two or three is put in is
chosen on the select split, for the latent and for each of those others; and what holds the
beginning of the behaviour itself (two tokens or more with which one of its spans begins) isn't put
in, since that would be the behaviour. A lone opening word is put in as any word is: inside a
sentence, and without what follows it in the behaviour, no grammar takes it for the behaviour, so
that a latent which fires on it there knows the word (`lexical`).

1. `top_ngrams`: on the select split, what the latent fires on most.
2. `host_texts`: prompts, and responses up to a place inside another sentence than the behaviour's.
3. `inject`: the text with the words put in, and the window that is looked at: from the words on, as
   long as a span of the behaviour usually is. The same window without the words is the plain one.
4. `injection_effect`: AUROC of injected against plain windows.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from sae_reasoning.behaviours.windows import Rows, problem_numbers
from sae_reasoning.behaviours.wordings import HELD_OUT
from sae_reasoning.records import Trace
from sae_reasoning.robustness.readers import Text
from sae_reasoning.stats import auroc

WORD_SIZES, PHRASE_SIZES = (1,), (2, 3)
SIZES = (*WORD_SIZES, *PHRASE_SIZES)
"""Tokens put in at once; each a strategy."""
PROMPT, RESPONSE = "prompt", "response"

Junction = Callable[[int, int], bool]
"""Whether a word ends between two tokens."""

_PER_TEXT = 3


@dataclass(frozen=True)
class HostText:
    """A text to put words into.

    Attributes:
        token_ids: As it stands.
        places: Tokens before which words are put, ascending; far enough apart.
        problem: Problem of the text.
        first: First token of its kind of text: after BOS in a prompt, or of the response.
    """

    token_ids: tuple[int, ...]
    places: tuple[int, ...]
    problem: int
    first: int


def openings(
    traces: Sequence[Trace], behaviours: Sequence[str]
) -> dict[str, frozenset[tuple[int, ...]]]:
    """The two tokens that begin each span of each behaviour, held-out wordings included."""
    found: dict[str, set[tuple[int, ...]]] = {behaviour: set() for behaviour in behaviours}
    for trace in traces:
        for span in trace.spans:
            name = span.behaviour.removeprefix(HELD_OUT)
            if name in found and span.token_end - span.token_start > 1:
                begin = trace.token_ids[span.token_start : span.token_start + 2]
                found[name].add(tuple(begin))
    return {behaviour: frozenset(own) for behaviour, own in found.items()}


def top_ngrams(
    activation: Float[np.ndarray, " row"],
    rows: Rows,
    size: int,
    excluded: Collection[tuple[int, ...]],
    fewest: int,
) -> tuple[int, ...] | None:
    """The n-gram on whose last token a latent fires highest on average; None where it never fires.

    Args:
        activation: Of one latent, at each row of `rows`.
        rows: Tokens, trace by trace.
        size: Tokens.
        excluded: Pairs of tokens that it may not hold.
        fewest: Occurrences below which its mean activation isn't trusted.
    """
    trace = np.repeat(np.arange(len(rows.row_of_trace) - 1), np.diff(rows.row_of_trace))
    num = len(activation) - size + 1
    if num <= 0:
        return None
    grams = np.stack([rows.token_id[k : k + num] for k in range(size)], axis=1).astype(np.int64)
    inside = trace[:num] == trace[size - 1 :]
    value = activation[size - 1 :][inside]
    each, code, count = np.unique(grams[inside], axis=0, return_inverse=True, return_counts=True)
    mean = np.bincount(code.ravel(), value, len(each)) / count
    mean[count < fewest] = 0
    for index in np.argsort(-mean, kind="stable").tolist():
        if mean[index] <= 0:
            return None
        gram = tuple(each[index].tolist())
        if not any(pair in excluded for pair in pairwise(gram)):
            return gram
    return None


def host_texts(
    traces: Sequence[Trace],
    behaviour: str,
    kind: str,
    split: str,
    writer: str,
    *,
    num: int,
    length: int,
    most_tokens: int,
    is_junction: Junction,
    seed: int,
) -> list[HostText]:
    """Texts with places between words: in prompts, or in responses outside the behaviour.

    In a response a place lies inside a sentence (no behaviour begins there), and neither it nor the
    window after it touches a span of the behaviour. One text a
    problem. So many parameters because each attack draws its own texts: of its kind, split and
    writer, as many and as long as it needs.

    Args:
        traces: To take texts from.
        behaviour: Behaviour that a place must be outside of.
        kind: `prompt` or `response`.
        split: Of the traces.
        writer: Of the traces, as of the spans that are compared.
        num: Texts.
        length: Tokens of a window.
        most_tokens: Of a text's kind, from its beginning, among which places are; 0 for all.
        is_junction: Where words end.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    problems = problem_numbers(traces)
    found: dict[int, HostText] = {}
    for t in rng.permutation(len(traces)).tolist():
        trace = traces[t]
        if (trace.split, trace.writer) != (split, writer) or problems[t] in found:
            continue
        begin, last = (1, trace.num_prompt_tokens)
        if kind == RESPONSE:
            begin, last = trace.num_prompt_tokens, len(trace.token_ids)
        first = begin + (kind == RESPONSE)
        last = min(last, begin + most_tokens) if most_tokens else last
        ids = trace.token_ids[:last]
        free = _free(trace, behaviour, kind)
        places = [
            p
            for p in range(first, last - length)
            if free[p : p + length].all() and is_junction(ids[p - 1], ids[p])
        ]
        if kind == RESPONSE:
            begins = {span.token_start for span in trace.spans}
            begins |= {opportunity.token + 1 for opportunity in trace.opportunities}
            places = [p for p in places if p not in begins]
        chosen = _apart(places, length, rng)
        if chosen:
            held = ids[: chosen[-1] + length]
            found[problems[t]] = HostText(held, chosen, problems[t], begin)
        if len(found) == num:
            break
    return list(found.values())


def _free(trace: Trace, behaviour: str, kind: str) -> Bool[np.ndarray, " token"]:
    """Tokens outside the behaviour."""
    free = np.ones(len(trace.token_ids), bool)
    if kind == RESPONSE:
        for span in trace.spans:
            if span.behaviour.removeprefix(HELD_OUT) == behaviour:
                free[span.token_start : span.token_end] = False
    return free


def _apart(places: list[int], length: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A few places, a window and more apart."""
    chosen: list[int] = []
    for index in rng.permutation(len(places)).tolist():
        if all(abs(places[index] - other) > 2 * length for other in chosen):
            chosen.append(places[index])
        if len(chosen) == _PER_TEXT:
            break
    return tuple(sorted(chosen))


def plain(host: HostText, length: int) -> Text:
    """The text as it stands, with the windows at its places."""
    windows = tuple((p, p + length) for p in host.places)
    return Text(host.token_ids, windows, host.problem, host.places[0])


def inject(host: HostText, words: tuple[int, ...], length: int) -> Text:
    """The text with words put in at each place."""
    ids: list[int] = []
    windows = []
    bounds = [0, *host.places, len(host.token_ids)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        if number:
            windows.append((len(ids), len(ids) + max(length, len(words))))
            ids += words
        ids += host.token_ids[start:stop]
    return Text(tuple(ids), tuple(windows), host.problem, host.places[0])


@dataclass(frozen=True)
class InjectionEffect:
    """What injected words do to a latent, beside latents that weren't selected.

    Attributes:
        strategy: Tokens put in at once, chosen on the select split.
        auroc: Of injected against plain windows, on the report split.
        null_95: 95 % quantile of the same over the other latents, each with its best strategy.
        p: Share of them whose AUROC is as large, the latent itself counted.
        num_others: How many.
    """

    strategy: int
    auroc: float
    null_95: float
    p: float
    num_others: int


@dataclass(frozen=True)
class Injection:
    """What a latent's own words do to it elsewhere.

    Attributes:
        behaviour: Behaviour that it detects.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        host_text: `prompt`, or `response` for traces outside the behaviour.
        num_tokens: How many were put in at once, chosen on the select split.
        words: Which.
        injection_auroc: Of windows with them against the same without, on the report split.
        null_95: 95 % quantile of the same, over unselected latents of like frequency.
        p: Share of those whose AUROC is as large.
        num_others: How many.
        num_windows: Windows with the words.
        fvu: Variance of this kind of text, as it stands, that the dictionary leaves unexplained.
        excluded: Whether that is too much for the attack to count.
    """

    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    host_text: str
    num_tokens: int
    words: str
    injection_auroc: float
    null_95: float
    p: float
    num_others: int
    num_windows: int
    fvu: float
    excluded: bool


def injection_effect(
    select: Sequence[tuple[Float[np.ndarray, "_ latent"], Float[np.ndarray, "_ latent"]]],
    report: Sequence[tuple[Float[np.ndarray, "_ latent"], Float[np.ndarray, "_ latent"]]],
) -> InjectionEffect:
    """Pick each latent's strategy on select, and compare the first latent with the others.

    Args:
        select: Maxima over injected and over plain windows of each strategy; the attacked latent
            first, then those that weren't selected.
        report: The same of the report split.
    """

    def effects(sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return np.array([_auroc(injected, plain_maxima) for injected, plain_maxima in sides])

    best = effects(select).argmax(0)
    found = effects(report)[best, np.arange(len(best))]
    own, others = float(found[0]), found[1:]
    if not len(others):
        return InjectionEffect(int(best[0]), own, float("nan"), float("nan"), 0)
    return InjectionEffect(
        strategy=int(best[0]),
        auroc=own,
        null_95=float(np.quantile(others, 0.95, method="weibull")),
        p=float((1 + (others >= own).sum()) / (1 + len(others))),
        num_others=len(others),
    )


def _auroc(
    injected: Float[np.ndarray, "_ latent"], plain_maxima: Float[np.ndarray, "_ latent"]
) -> Float[np.ndarray, " latent"]:
    is_injected = np.repeat([True, False], [len(injected), len(plain_maxima)])
    return auroc(np.concatenate([injected, plain_maxima]).astype(np.float64), is_injected)


def matched_by_mass(
    latent: int,
    mass: Float[np.ndarray, " latent"],
    excluded: Collection[int],
    num: int,
) -> Int[np.ndarray, " other"]:
    """Latents whose mass (firing rate x mean value) is nearest, without those excluded."""
    usable = mass > 0
    usable[[*excluded, latent]] = False
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        return candidates
    gap = np.abs(np.log(mass[candidates]) - np.log(max(mass[latent], 1e-12)))
    return candidates[np.argsort(gap, kind="stable")[:num]]
