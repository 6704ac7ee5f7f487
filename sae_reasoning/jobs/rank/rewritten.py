"""Attacks that a reader reads new text for: its words put elsewhere, its moves in other words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from sae_reasoning.behaviours.baselines import some_with_moves
from sae_reasoning.behaviours.injection import (
    PROMPT,
    RESPONSE,
    SIZES,
    Carrier,
    Rise,
    Text,
    carriers,
    inject,
    like,
    openings,
    plain,
    rises,
    top_ngrams,
)
from sae_reasoning.behaviours.outcomes import (
    INJECTED,
    KILLED,
    PARAPHRASE,
    PLANTED,
    UNCLEAR,
    Attack,
    Bars,
    Target,
    judge,
)
from sae_reasoning.behaviours.windows import cell_index, problem_numbers, response_rows
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, encode_response, word_junction
from sae_reasoning.edges.lm.read import read_residuals, residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.jobs.rank.subjects import Subject
from sae_reasoning.stats import kept_auroc
from sae_reasoning.traces.paraphrase import Paraphraser, paraphrase

KINDS = {PROMPT: INJECTED, RESPONSE: PLANTED}
SPLITS = ("select", "report")

_SAMPLED_TRACES = 150
"""Traces of the select split on which a latent's own words are looked for."""
_PARAPHRASED_TRACES = 150
_TEXTS = {"select": 8, "report": 30}
"""Texts that words are put into, at up to three places each."""
_NUM_OTHERS = 50
"""Latents of like frequency that an injection is held against."""


@dataclass(frozen=True)
class Injection:
    """What a latent's own words do to it elsewhere.

    Attributes:
        behaviour: Move that it's said to track.
        reader: Whose activations.
        writer: Whose text.
        layer: Decoder block.
        latent: Index.
        carrier: `prompt`, or `response` for traces outside the move.
        strategy: How many tokens were put in at once, chosen on the select split.
        words: Which.
        rise: AUROC of windows with them against the same without, on the report split.
        null_95: 95 % quantile of the same, over unselected latents of like frequency.
        p: Share of those that rise as much.
        num_others: How many.
        num_windows: Windows with the words.
    """

    behaviour: str
    reader: str
    writer: str
    layer: int
    latent: int
    carrier: str
    strategy: int
    words: str
    rise: float
    null_95: float
    p: float
    num_others: int
    num_windows: int


@dataclass(frozen=True)
class _Words:
    """What is put in for one latent, and the latents that it's held against."""

    target: Target
    ngrams: dict[int, tuple[int, ...]]
    others: tuple[int, ...]


def attack_with_words(
    cfg: Config, subject: Subject, lm: LanguageModel, bars: Bars, console: Console
) -> tuple[list[Attack], list[Injection]]:
    """A latent's own tokens put into prompts, and into traces outside the move."""
    own = _own_words(cfg, subject, lm)
    is_junction = word_junction(lm.tokenizer)
    attacks: list[Attack] = []
    injections: list[Injection] = []
    with console.progress(len(own), "trackers", f"{subject.name}: words put elsewhere") as bar:
        for number, behaviour in enumerate(cfg.behaviours):
            here = [words for words in own if words.target.behaviour == behaviour]
            if not here:
                continue
            length = _usual_length(subject, number, here[0].target.writer)
            for carrier, kind in KINDS.items():
                texts = {
                    split: carriers(
                        subject.traces,
                        behaviour,
                        carrier,
                        split,
                        here[0].target.writer,
                        num=_TEXTS[split],
                        length=length,
                        is_junction=is_junction,
                        seed=cfg.rank.seed,
                    )
                    for split in SPLITS
                }
                read = _read_injected(cfg, subject, lm, here, texts, length)
                for words in here:
                    attack, injection = _one(
                        cfg, subject, lm, words, read, texts, carrier, kind, bars
                    )
                    attacks.append(attack)
                    injections += injection
            bar.advance(len(here))
    return attacks, injections


def _own_words(cfg: Config, subject: Subject, lm: LanguageModel) -> list[_Words]:
    """Of each target what it fires on most on the select split, and its like."""
    select = [trace for trace in subject.traces if trace.split == "select"]
    sample = some_with_moves(select, _SAMPLED_TRACES, cfg.rank.seed)
    rows = response_rows(sample)
    layers = sorted({target.layer for target in subject.targets})
    sequences = [trace.token_ids for trace in sample]
    residuals = residuals_in_memory(
        lm, sequences, rows.first_position, layers, cfg.cache.token_budget
    )
    barred = openings(subject.traces, cfg.behaviours)
    found = []
    for layer in layers:
        targets = [target for target in subject.targets if target.layer == layer]
        listed = {target.latent for target in targets}
        active = subject.dictionaries[layer].encode_sparse(
            residuals[layer].to(subject.dictionaries[layer].device)
        )
        values, latents = active.numpy()
        mass = np.bincount(latents.ravel(), values.ravel(), subject.dictionaries[layer].d_sae)
        for target in targets:
            activation = np.where(latents == target.latent, values, 0).sum(1)
            ngrams = {
                size: gram
                for size in SIZES
                if (gram := top_ngrams(activation, rows, size, barred[target.behaviour]))
            }
            others = like(target.latent, mass, listed, _NUM_OTHERS)
            found.append(_Words(target, ngrams, tuple(others.tolist())))
    return found


def _usual_length(subject: Subject, behaviour: int, writer: str) -> int:
    """Median tokens of the move's spans."""
    intervals = subject.drawn.intervals
    here = intervals.of_cell(cell_index(behaviour, writer, "report"))
    sizes = (intervals.stop[here] - intervals.start[here])[intervals.is_positive[here]]
    return int(np.median(sizes)) if len(sizes) else 1


@dataclass(frozen=True)
class _Read:
    """Maxima over windows [window, latent], by split, layer and words; None for no words."""

    maxima: dict[tuple[str, int, tuple[int, ...] | None], Float[np.ndarray, "window latent"]]
    latents: dict[int, list[int]]

    def of(
        self, split: str, layer: int, words: tuple[int, ...] | None, latents: Sequence[int]
    ) -> Float[np.ndarray, "window latent"]:
        columns = [self.latents[layer].index(latent) for latent in latents]
        return self.maxima[split, layer, words][:, columns]


def _read_injected(
    cfg: Config,
    subject: Subject,
    lm: LanguageModel,
    own: Sequence[_Words],
    texts: dict[str, list[Carrier]],
    length: int,
) -> _Read:
    """Read every text as it stands, and with every n-gram of any target."""
    wanted: dict[int, set[int]] = {}
    for words in own:
        wanted.setdefault(words.target.layer, set()).update((words.target.latent, *words.others))
    latents = {layer: sorted(chosen) for layer, chosen in wanted.items()}
    grams = sorted({gram for words in own for gram in words.ngrams.values()})
    made: list[Text] = []
    keys: list[tuple[str, tuple[int, ...] | None]] = []
    for split, there in texts.items():
        for gram in (None, *grams):
            for carrier in there:
                made.append(
                    plain(carrier, length) if gram is None else inject(carrier, gram, length)
                )
                keys.append((split, gram))
    found = window_maxima(lm, made, subject.dictionaries, latents, cfg.cache.token_budget)
    maxima = {}
    for layer, chosen in latents.items():
        for key in {(split, gram) for split in texts for gram in (None, *grams)}:
            parts = [found[layer][i] for i, other in enumerate(keys) if other == key]
            maxima[key[0], layer, key[1]] = np.concatenate(
                [np.zeros((0, len(chosen)), np.float32), *parts]
            )
    return _Read(maxima, latents)


def _one(
    cfg: Config,
    subject: Subject,
    lm: LanguageModel,
    words: _Words,
    read: _Read,
    texts: dict[str, list[Carrier]],
    carrier: str,
    kind: str,
    bars: Bars,
) -> tuple[Attack, list[Injection]]:
    """One latent's attack: spans against windows with the words that raise it most."""
    target, layer = words.target, words.target.layer
    can_be_made = bool(words.ngrams) and all(texts.values())
    injected, problem = np.zeros(0), np.zeros(0, np.int64)
    rise: Rise | None = None
    if can_be_made:
        columns = [target.latent, *words.others]
        sides = {
            split: [
                (read.of(split, layer, gram, columns), read.of(split, layer, None, columns))
                for gram in words.ngrams.values()
            ]
            for split in SPLITS
        }
        rise = rises(sides["select"], sides["report"])
        injected = sides["report"][rise.strategy][0][:, 0]
        problem = np.concatenate([np.full(len(c.places), c.problem) for c in texts["report"]])
    attack = _against(subject, cfg, target, kind, injected, problem, bars)
    if rise is None:
        return attack, []
    if attack.outcome == KILLED and not rise.p < 0.05:
        attack = replace(attack, outcome=UNCLEAR)  # Any latent rises as much.
    size, gram = list(words.ngrams.items())[rise.strategy]
    identity = {k: v for k, v in asdict(target).items() if k != "shortlist"}
    said = lm.tokenizer.decode(list(gram))
    injection = Injection(
        **identity,
        carrier=carrier,
        strategy=size,
        words=str(said),
        rise=rise.auroc,
        null_95=rise.null_95,
        p=rise.p,
        num_others=rise.num_others,
        num_windows=len(injected),
    )
    return attack, [injection]


def _against(
    subject: Subject,
    cfg: Config,
    target: Target,
    kind: str,
    values: Float[np.ndarray, " window"],
    problem: np.ndarray,
    bars: Bars,
) -> Attack:
    """Spans as they stand against new windows; or, of a paraphrase, new spans against windows."""
    cell = cell_index(cfg.behaviours.index(target.behaviour), target.writer, "report")
    here = subject.drawn.intervals.of_cell(cell)
    is_span = subject.drawn.intervals.is_positive[here]
    maxima = subject.maxima(target.layer).columns(cell, np.array([target.latent]))[:, 0]
    new = np.repeat([False, True], [len(maxima), len(values)])
    spans = np.concatenate([is_span, np.zeros(len(values), bool)])
    windows = np.concatenate([~is_span, np.zeros(len(values), bool)])
    is_positive, is_negative = (new, windows) if kind == PARAPHRASE else (spans, new)
    kept = kept_auroc(
        np.concatenate([maxima, values]),
        is_positive,
        is_negative,
        np.concatenate([subject.drawn.intervals.problem[here], problem]),
        np.zeros(len(new), np.int64),
        reference=spans,
        reference_negative=windows,
        keep=bars.keep,
        num_resamples=bars.num_resamples,
        seed=bars.seed,
    )
    counts = {"n_pos": int(is_positive.sum()), "n_neg": int(is_negative.sum())}
    return judge(target, kind, kept, bars, **counts)


def attack_with_paraphrase(
    cfg: Config,
    subject: Subject,
    lm: LanguageModel,
    paraphraser: Paraphraser,
    bars: Bars,
    console: Console,
) -> list[Attack]:
    """The same spans in other words, read anew, against windows of the text as it stands."""
    rng = np.random.default_rng(cfg.rank.seed)
    numbers = problem_numbers(subject.traces)
    of_trace = {t.trace_id: numbers[place] for place, t in enumerate(subject.traces)}
    report = [trace for trace in subject.traces if trace.split == "report"]
    texts: list[Text] = []
    spans: list[tuple[int, int, str, str]] = []
    for trace in some_with_moves(report, _PARAPHRASED_TRACES, cfg.rank.seed):
        made = paraphrase(
            trace,
            cfg.behaviours,
            paraphraser,
            lambda text: encode_response(lm.tokenizer, text),
            rng,
        )
        if made is None:
            continue
        new = [s for s, is_new in zip(made.trace.spans, made.is_new, strict=True) if is_new]
        spans += [(len(texts), w, s.behaviour, trace.writer) for w, s in enumerate(new)]
        windows = tuple((s.token_start, s.token_end) for s in new)
        texts.append(Text(made.trace.token_ids, windows, of_trace[trace.trace_id]))
    wanted: dict[int, list[int]] = {}
    for target in subject.targets:
        wanted.setdefault(target.layer, [])
        if target.latent not in wanted[target.layer]:
            wanted[target.layer].append(target.latent)
    with console.progress(len(texts), "traces", f"{subject.name}: moves in other words") as bar:
        found = window_maxima(lm, texts, subject.dictionaries, wanted, cfg.cache.token_budget)
        bar.advance(len(texts))
    attacks = []
    for target in subject.targets:
        own = [
            (text, window)
            for text, window, behaviour, writer in spans
            if (behaviour, writer) == (target.behaviour, target.writer)
        ]
        column = wanted[target.layer].index(target.latent)
        values = np.array([found[target.layer][t][w, column] for t, w in own], np.float64)
        problem = np.array([texts[t].problem for t, _ in own], np.int64)
        attacks.append(_against(subject, cfg, target, PARAPHRASE, values, problem, bars))
    return attacks


def window_maxima(
    lm: LanguageModel,
    texts: Sequence[Text],
    dictionaries: Mapping[int, Dictionary],
    latents: Mapping[int, Sequence[int]],
    token_budget: int,
) -> dict[int, list[Float[np.ndarray, "window latent"]]]:
    """Largest activation of some latents over each window of each text, by layer."""
    found: dict[int, list[np.ndarray]] = {layer: [np.empty(0)] * len(texts) for layer in latents}
    sequences = [text.token_ids for text in texts]
    for batch in read_residuals(lm, sequences, sorted(latents), token_budget):
        place: list[int] = []
        position: list[int] = []
        window: list[int] = []
        sizes = [len(texts[index].windows) for index in batch.rows]
        number = 0
        for row, index in enumerate(batch.rows):
            for start, stop in texts[index].windows:
                place += [row] * (stop - start)
                position += range(start, stop)
                window += [number] * (stop - start)
                number += 1
        for layer, chosen in latents.items():
            resid = batch.residuals[layer][torch.tensor(place), torch.tensor(position)]
            dictionary = dictionaries[layer]
            sparse = dictionary.encode_sparse(resid.float().to(dictionary.device))
            values, active = sparse.numpy()
            column = np.full(dictionary.d_sae, -1)
            column[chosen] = np.arange(len(chosen))
            own = column[active]
            row_of, slot = np.nonzero((own >= 0) & (values > 0))
            maxima = np.zeros((number, len(chosen)), np.float32)
            np.maximum.at(
                maxima, (np.array(window)[row_of], own[row_of, slot]), values[row_of, slot]
            )
            for index, part in zip(
                batch.rows, np.split(maxima, np.cumsum(sizes)[:-1]), strict=True
            ):
                found[layer][index] = part
    return found
