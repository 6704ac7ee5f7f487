"""A latent's own words put elsewhere, read anew: one token alone, and two or three.

A kind of text that a dictionary leaves too much of unexplained is left out: what its latents do
there says nothing of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_reasoning.behaviours.baselines import some_with_behaviours
from sae_reasoning.behaviours.injection import (
    PHRASE_SIZES,
    PROMPT,
    RESPONSE,
    SIZES,
    WORD_SIZES,
    Carrier,
    Injection,
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
    LEFT_OUT,
    PHRASE_INJECTED,
    PHRASE_PLANTED,
    PLANTED,
    UNCLEAR,
    Attack,
    Bars,
    Target,
)
from sae_reasoning.behaviours.windows import cell_index
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, word_junction
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_quality import measure_fit
from sae_reasoning.jobs.rank.rewritten import against, window_maxima
from sae_reasoning.jobs.rank.subjects import Subject
from sae_reasoning.records import SPLITS

KINDS = {
    PROMPT: {INJECTED: WORD_SIZES, PHRASE_INJECTED: PHRASE_SIZES},
    RESPONSE: {PLANTED: WORD_SIZES, PHRASE_PLANTED: PHRASE_SIZES},
}
"""Attacks by the text that words are put into, and how many of them at once each may put."""

_SAMPLED_TRACES = 150
"""Traces of the select split on which a latent's own words are looked for."""
_ON_SELECT = 4
"""Texts of the report split that words are put into for each of the select split."""


@dataclass(frozen=True)
class _Words:
    """What is put in for one latent, and the latents that it's held against."""

    target: Target
    ngrams: dict[int, tuple[int, ...]]
    others: tuple[int, ...]

    def of_sizes(self, sizes: Sequence[int]) -> "_Words":
        """The n-grams of some lengths only."""
        return replace(self, ngrams={n: gram for n, gram in self.ngrams.items() if n in sizes})


def attack_with_words(
    cfg: Config, subject: Subject, lm: LanguageModel, bars: Bars, console: Console
) -> tuple[list[Attack], list[Injection]]:
    """A latent's own tokens put into prompts, and into traces outside the behaviour."""
    own = _own_words(cfg, subject)
    is_junction = word_junction(lm.tokenizer)
    attacks: list[Attack] = []
    injections: list[Injection] = []
    with console.progress(
        len(own), "span_detectors", f"{subject.name}: words put elsewhere"
    ) as bar:
        for number, behaviour in enumerate(cfg.behaviours):
            here = [words for words in own if words.target.behaviour == behaviour]
            if not here:
                continue
            length = _usual_length(subject, number, here[0].target.writer)
            for carrier, kinds in KINDS.items():
                texts = {
                    split: carriers(
                        subject.traces,
                        behaviour,
                        carrier,
                        split,
                        here[0].target.writer,
                        num=_num_texts(cfg, split),
                        length=length,
                        most_tokens=cfg.rank.injection_tokens,
                        is_junction=is_junction,
                        seed=cfg.rank.seed,
                    )
                    for split in SPLITS
                }
                read = _read_injected(cfg, subject, lm, here, texts, length)
                for words in here:
                    for kind, sizes in kinds.items():
                        attack, injection = _one(
                            cfg,
                            subject,
                            lm,
                            words.of_sizes(sizes),
                            read,
                            texts,
                            carrier,
                            kind,
                            bars,
                        )
                        attacks.append(attack)
                        injections += injection
            bar.advance(len(here))
    return attacks, injections


def _own_words(cfg: Config, subject: Subject) -> list[_Words]:
    """Of each target what it fires on most on the select split, and its like."""
    select = [t for t, trace in enumerate(subject.traces) if trace.split == "select"]
    chosen = some_with_behaviours(
        [subject.traces[t] for t in select], _SAMPLED_TRACES, cfg.rank.seed
    )
    sample = [select[number] for number in chosen]
    rows = subject.rows.of(sample)
    layers = sorted({target.layer for target in subject.targets})
    residuals = subject.residuals(sample)
    barred = openings(subject.traces, cfg.behaviours)
    fewest = cfg.rank.attacks.token_occurrences
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
                if (gram := top_ngrams(activation, rows, size, barred[target.behaviour], fewest))
            }
            others = like(target.latent, mass, listed, cfg.rank.attacks.null_latents)
            found.append(_Words(target, ngrams, tuple(others.tolist())))
    return found


def _num_texts(cfg: Config, split: str) -> int:
    """Texts that words are put into, at up to three places each."""
    on_report = cfg.rank.injection_texts
    return on_report if split == "report" else -(-on_report // _ON_SELECT)


def _usual_length(subject: Subject, behaviour: int, writer: str) -> int:
    """Median tokens of the behaviour's spans."""
    intervals = subject.drawn.intervals
    here = intervals.of_cell(cell_index(behaviour, writer, "report"))
    sizes = (intervals.stop[here] - intervals.start[here])[intervals.is_positive[here]]
    return int(np.median(sizes)) if len(sizes) else 1


@dataclass(frozen=True)
class _Read:
    """What a reader makes of some texts, with and without words put in.

    Attributes:
        maxima: Over windows [window, latent], by split, layer and words; None for no words.
        latents: Of each layer, in the order of those columns.
        fvu: Of each layer's dictionary on the texts as they stand.
    """

    maxima: dict[tuple[str, int, tuple[int, ...] | None], Float[np.ndarray, "window latent"]]
    latents: dict[int, list[int]]
    fvu: Mapping[int, float]

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
    return _Read(maxima, latents, _unexplained(cfg, subject, lm, sorted(latents), texts))


def _unexplained(
    cfg: Config,
    subject: Subject,
    lm: LanguageModel,
    layers: Sequence[int],
    texts: Mapping[str, Sequence[Carrier]],
) -> dict[int, float]:
    """FVU of each layer's dictionary on this kind of text as it stands; NaN where there is none."""
    every = [carrier for there in texts.values() for carrier in there]
    if not every:
        return dict.fromkeys(layers, float("nan"))
    residuals = residuals_in_memory(
        lm,
        [carrier.token_ids for carrier in every],
        np.array([carrier.first for carrier in every]),
        layers,
        cfg.cache.token_budget,
    )
    return {x: measure_fit(subject.dictionaries[x], [residuals[x]]).fvu for x in layers}


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
    """One latent's attack: spans against windows with the words that raise it most.

    So many parameters because the texts and readings are shared by all latents of a kind.
    """
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
    attack = against(subject, cfg, target, kind, injected, problem, bars)
    is_left_out = read.fvu[layer] > bars.at.carrier_fvu
    if attack.outcome == KILLED and rise is not None and not rise.p < bars.at.null_p:
        attack = replace(attack, outcome=UNCLEAR)  # Any latent rises as much.
    if is_left_out:
        attack = replace(attack, outcome=LEFT_OUT)
    if rise is None:
        return attack, []
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
        fvu=read.fvu[layer],
        is_left_out=is_left_out,
    )
    return attack, [injection]
