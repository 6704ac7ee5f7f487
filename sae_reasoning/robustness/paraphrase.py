"""The attack by paraphrase: the same spans in other words, read again."""

from collections.abc import Callable

import numpy as np

from sae_reasoning.behaviours.baselines import some_with_behaviours
from sae_reasoning.behaviours.windows import problem_numbers
from sae_reasoning.records import REPORT
from sae_reasoning.robustness.outcomes import PARAPHRASE, Attack, Thresholds
from sae_reasoning.robustness.readers import Reader, Text
from sae_reasoning.tasks.protocol import Paraphraser
from sae_reasoning.traces.paraphrase import paraphrase

_PARAPHRASED_TRACES = 150


def attack_with_paraphrase(
    reader: Reader,
    paraphraser: Paraphraser,
    thresholds: Thresholds,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Attack]:
    """Paraphrased spans of the report split against windows of the text as it stands.

    Args:
        reader: With the latents.
        paraphraser: Finds the words.
        thresholds: What decides; its seed is the paraphraser's, too.
        on_done: Called with how many traces have been read.
    """
    model = reader.model()
    rng = np.random.default_rng(thresholds.seed)
    numbers = problem_numbers(reader.traces)
    of_trace = {t.trace_id: numbers[place] for place, t in enumerate(reader.traces)}
    report = [trace for trace in reader.traces if trace.split == REPORT]
    texts: list[Text] = []
    spans: list[tuple[int, int, str, str]] = []
    for number in some_with_behaviours(report, _PARAPHRASED_TRACES, thresholds.seed):
        trace = report[number]
        made = paraphrase(trace, reader.behaviours, paraphraser, model.encode, rng)
        if made is None:
            continue
        new = [s for s, is_new in zip(made.trace.spans, made.is_new, strict=True) if is_new]
        spans += [(len(texts), w, s.behaviour, trace.writer) for w, s in enumerate(new)]
        windows = tuple((s.token_start, s.token_end) for s in new)
        texts.append(Text(made.trace.token_ids, windows, of_trace[trace.trace_id]))
    wanted: dict[int, list[int]] = {}
    for target in reader.targets:
        wanted.setdefault(target.layer, [])
        if target.latent not in wanted[target.layer]:
            wanted[target.layer].append(target.latent)
    found = model.window_maxima(texts, wanted)
    on_done(len(texts))
    attacks = []
    for target in reader.targets:
        own = [
            (text, window)
            for text, window, behaviour, writer in spans
            if (behaviour, writer) == (target.behaviour, target.writer)
        ]
        column = wanted[target.layer].index(target.latent)
        values = np.array([found[target.layer][t][w, column] for t, w in own], np.float64)
        problem = np.array([texts[t].problem for t, _ in own], np.int64)
        attacks.append(
            reader.judge_new_text(target, PARAPHRASE, values, problem, thresholds, is_spans=True)
        )
    return attacks
