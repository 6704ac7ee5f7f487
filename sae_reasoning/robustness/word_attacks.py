"""Attacks by a latent's own words, put elsewhere and read again: one token alone, or two or three.

A kind of text that a dictionary leaves too much of unexplained is excluded: what its latents do
there says nothing of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Float

from sae_reasoning.behaviours.baselines import some_with_behaviours
from sae_reasoning.config import RankConfig
from sae_reasoning.records import REPORT, SELECT, SPLITS
from sae_reasoning.robustness.injection import (
    PHRASE_SIZES,
    PROMPT,
    RESPONSE,
    SIZES,
    WORD_SIZES,
    HostText,
    Injection,
    InjectionEffect,
    host_texts,
    inject,
    injection_effect,
    matched_by_mass,
    openings,
    plain,
    top_ngrams,
)
from sae_reasoning.robustness.outcomes import (
    EXCLUDED,
    INCONCLUSIVE,
    INJECTED,
    PHRASE_INJECTED,
    PHRASE_PLANTED,
    PLANTED,
    REFUTED,
    Attack,
    Target,
    Thresholds,
)
from sae_reasoning.robustness.readers import LatentModel, Reader, Text

KINDS = {
    PROMPT: {INJECTED: WORD_SIZES, PHRASE_INJECTED: PHRASE_SIZES},
    RESPONSE: {PLANTED: WORD_SIZES, PHRASE_PLANTED: PHRASE_SIZES},
}
"""Attacks by the text that words are put into, and how many of them at once each may put."""

_SAMPLED_TRACES = 150
"""Traces of the select split on which a latent's own words are looked for."""
_ON_SELECT = 4
"""Texts of the report split that words are put into for each of the select split."""

Hosts = Mapping[str, Sequence[HostText]]
"""Texts of one kind, by split."""


@dataclass(frozen=True)
class _Words:
    """What is put in for one latent, and the latents that it's compared with."""

    target: Target
    ngrams: dict[int, tuple[int, ...]]
    others: tuple[int, ...]

    def of_sizes(self, sizes: Sequence[int]) -> "_Words":
        """The n-grams of some lengths only."""
        return replace(self, ngrams={n: gram for n, gram in self.ngrams.items() if n in sizes})


def attack_with_words(
    reader: Reader,
    options: RankConfig,
    thresholds: Thresholds,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Attack], list[Injection]]:
    """A latent's own tokens put into prompts, and into traces outside the behaviour.

    Args:
        reader: With the latents.
        options: How much text is read.
        thresholds: What decides.
        on_done: Called with how many latents are done.
    """
    model = reader.model()
    own = _own_words(reader, model, options)
    attacks: list[Attack] = []
    injections: list[Injection] = []
    for behaviour in reader.behaviours:
        here = [words for words in own if words.target.behaviour == behaviour]
        if not here:
            continue
        length = _usual_length(reader, here[0].target)
        for host, kinds in KINDS.items():
            texts = {
                split: host_texts(
                    reader.traces,
                    behaviour,
                    host,
                    split,
                    here[0].target.writer,
                    num=_num_texts(options, split),
                    length=length,
                    most_tokens=options.injection_tokens,
                    is_junction=model.is_junction,
                    seed=options.seed,
                )
                for split in SPLITS
            }
            read = _read_injected(model, here, texts, length)
            for words in here:
                for kind, sizes in kinds.items():
                    attack, effect = _attack(
                        reader, words.of_sizes(sizes), read, texts, kind, thresholds
                    )
                    attacks.append(attack)
                    if effect is not None:
                        of_size = words.of_sizes(sizes)
                        injections.append(_injection(of_size, effect, host, read, model, attack))
        on_done(len(here))
    return attacks, injections


def _own_words(reader: Reader, model: LatentModel, options: RankConfig) -> list[_Words]:
    """Of each target what it is most active on, on the select split, and latents of like mass."""
    select = [t for t, trace in enumerate(reader.traces) if trace.split == SELECT]
    chosen = some_with_behaviours([reader.traces[t] for t in select], _SAMPLED_TRACES, options.seed)
    sample = [select[number] for number in chosen]
    rows = reader.rows.of(sample)
    layers = sorted({target.layer for target in reader.targets})
    excluded = openings(reader.traces, reader.behaviours)
    fewest = options.attacks.token_occurrences
    found = []
    for layer, values, latents in model.latents_of(sample, layers):
        targets = [target for target in reader.targets if target.layer == layer]
        listed = {target.latent for target in targets}
        mass = np.bincount(latents.ravel(), values.ravel(), model.num_latents(layer))
        for target in targets:
            activation = np.where(latents == target.latent, values, 0).sum(1)
            ngrams = {
                size: gram
                for size in SIZES
                if (gram := top_ngrams(activation, rows, size, excluded[target.behaviour], fewest))
            }
            others = matched_by_mass(target.latent, mass, listed, options.attacks.null_latents)
            found.append(_Words(target, ngrams, tuple(others.tolist())))
    return found


def _num_texts(options: RankConfig, split: str) -> int:
    """Texts that words are put into, at up to three places each."""
    on_report = options.injection_texts
    return on_report if split == REPORT else -(-on_report // _ON_SELECT)


def _usual_length(reader: Reader, target: Target) -> int:
    """Median tokens of the behaviour's spans."""
    intervals = reader.matched.intervals
    here = intervals.of_cell(reader.cell(target))
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


def _read_injected(model: LatentModel, own: Sequence[_Words], texts: Hosts, length: int) -> _Read:
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
            for host in there:
                made.append(plain(host, length) if gram is None else inject(host, gram, length))
                keys.append((split, gram))
    found = model.window_maxima(made, latents)
    maxima = {}
    for layer, chosen in latents.items():
        for key in {(split, gram) for split in texts for gram in (None, *grams)}:
            parts = [found[layer][i] for i, other in enumerate(keys) if other == key]
            maxima[key[0], layer, key[1]] = np.concatenate(
                [np.zeros((0, len(chosen)), np.float32), *parts]
            )
    every = [(host.token_ids, host.first) for there in texts.values() for host in there]
    return _Read(maxima, latents, model.unexplained(every, sorted(latents)))


def _attack(
    reader: Reader,
    words: _Words,
    read: _Read,
    texts: Hosts,
    kind: str,
    thresholds: Thresholds,
) -> tuple[Attack, InjectionEffect | None]:
    """One latent's attack: spans against windows with the words that it responds to most."""
    target, layer = words.target, words.target.layer
    injected, problem = np.zeros(0), np.zeros(0, np.int64)
    effect: InjectionEffect | None = None
    if words.ngrams and all(texts.values()):
        columns = [target.latent, *words.others]
        sides = {
            split: [
                (read.of(split, layer, gram, columns), read.of(split, layer, None, columns))
                for gram in words.ngrams.values()
            ]
            for split in SPLITS
        }
        effect = injection_effect(sides[SELECT], sides[REPORT])
        injected = sides[REPORT][effect.strategy][0][:, 0]
        problem = np.concatenate([np.full(len(c.places), c.problem) for c in texts[REPORT]])
    attack = reader.judge_new_text(target, kind, injected, problem, thresholds, is_spans=False)
    if attack.outcome == REFUTED and effect is not None and not effect.p < thresholds.at.null_p:
        attack = replace(attack, outcome=INCONCLUSIVE)  # Any latent responds as much.
    if read.fvu[layer] > thresholds.at.host_fvu:
        attack = replace(attack, outcome=EXCLUDED)
    return attack, effect


def _injection(
    words: _Words,
    effect: InjectionEffect,
    host: str,
    read: _Read,
    model: LatentModel,
    attack: Attack,
) -> Injection:
    size, gram = list(words.ngrams.items())[effect.strategy]
    identity = {k: v for k, v in asdict(words.target).items() if k != "shortlist"}
    return Injection(
        **identity,
        host_text=host,
        num_tokens=size,
        words=model.decode(gram),
        injection_auroc=effect.auroc,
        null_95=effect.null_95,
        p=effect.p,
        num_others=effect.num_others,
        num_windows=attack.n_neg,
        fvu=read.fvu[words.target.layer],
        excluded=attack.outcome == EXCLUDED,
    )
