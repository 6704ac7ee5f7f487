"""Attacks that a reader reads new text for: paraphrased behaviours; windows of any new text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from sae_reasoning.behaviours.baselines import some_with_behaviours
from sae_reasoning.behaviours.injection import Text
from sae_reasoning.behaviours.outcomes import PARAPHRASE, Attack, Bars, Target, judge
from sae_reasoning.behaviours.windows import cell_index, problem_numbers
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, encode_response
from sae_reasoning.edges.lm.read import ReadBatch, read_continuations
from sae_reasoning.edges.sae_checkpoint import Dictionary
from sae_reasoning.jobs.rank.subjects import Subject
from sae_reasoning.stats import kept_auroc
from sae_reasoning.traces.paraphrase import Paraphraser, paraphrase

_PARAPHRASED_TRACES = 150


def against(
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
        keep=bars.at.keep,
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
    for number in some_with_behaviours(report, _PARAPHRASED_TRACES, cfg.rank.seed):
        trace = report[number]
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
    with console.progress(
        len(texts), "traces", f"{subject.name}: behaviours in other words"
    ) as bar:
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
        attacks.append(against(subject, cfg, target, PARAPHRASE, values, problem, bars))
    return attacks


def window_maxima(
    lm: LanguageModel,
    texts: Sequence[Text],
    dictionaries: Mapping[int, Dictionary],
    latents: Mapping[int, Sequence[int]],
    token_budget: int,
) -> dict[int, list[Float[np.ndarray, "window latent"]]]:
    """Largest activation of some latents over each window of each text, by layer.

    Texts that begin with the same prefix are read together, the prefix once.
    """
    found: dict[int, list[np.ndarray]] = {layer: [np.empty(0)] * len(texts) for layer in latents}
    for first, batch in _read(lm, texts, sorted(latents), token_budget):
        place: list[int] = []
        position: list[int] = []
        window: list[int] = []
        sizes = [len(texts[index].windows) for index in batch.rows]
        number = 0
        for row, index in enumerate(batch.rows):
            for start, stop in texts[index].windows:
                place += [row] * (stop - start)
                position += range(start - first, stop - first)
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


def _read(
    lm: LanguageModel, texts: Sequence[Text], layers: Sequence[int], token_budget: int
) -> Iterator[tuple[int, ReadBatch]]:
    """Batches of texts, each with the token from which on there are residuals."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.token_ids[: text.prefix], []).append(index)
    for prefix, own in groups.items():
        continuations = [texts[index].token_ids[len(prefix) :] for index in own]
        for batch in read_continuations(lm, prefix, continuations, layers, token_budget):
            yield len(prefix), replace(batch, rows=[own[row] for row in batch.rows])
