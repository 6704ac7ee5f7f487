"""Sampled onset probability on models whose exact one is known."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from sae_reasoning.compose import compose
from sae_reasoning.contrast.measures import Measure
from sae_reasoning.contrast.rates import OWN_TRACES, PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.contrast.starts import places_of
from sae_reasoning.edges.console import Console
from sae_reasoning.jobs.contrast.onsets import sampled_onsets
from sae_reasoning.jobs.contrast.setting import Setting
from sae_reasoning.jobs.contrast.steps import onset_log_probs, onset_rates, rollouts
from sae_reasoning.opening.problems import draw_search_problems
from sae_reasoning.records import MODELS, SPLITS, Annotation
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS
from sae_reasoning.tasks.search.task import SearchAnnotator, search_task


class OfTheGrammar(SearchAnnotator):
    """Labels behaviours that begin with an opening of the grammar, as exact probabilities do.

    The parser knows garbled ones too: of the deployed Llama's `uncertainty-estimation` every eighth
    begins with "could rain today ,".
    """

    def annotate(self, problem: Problem, response: str, *, truncated: bool) -> Annotation:
        found = super().annotate(problem, response, truncated=truncated)
        spans = tuple(
            span
            for span in found.spans
            if response.startswith(
                tuple(f"{opening} " for opening in ALL_OPENINGS[span.behaviour]), span.char_start
            )
        )
        return replace(found, spans=spans, is_right=())


def by_name(measures: list[Measure]) -> dict[tuple[str, ...], Measure]:
    return {(m.behaviour, m.measure, m.model): m for m in measures if m.level == 0.95}


@pytest.mark.e2e
@pytest.mark.parametrize("family", ["llama", "neox"])
def test_sampled_onset_probability_agrees_with_the_exact_one(family: str, tmp_path: Path) -> None:
    cfg = compose(
        [
            f"pair=organism_deployed_{family}",
            "traces.num_problems=48",
            "traces.report_share=0.8",
            "contrast.samples=1",
            "contrast.onset_places=240",
            "contrast.bootstrap=500",
        ]
    )
    posed = draw_search_problems(cfg)
    setting = Setting(
        own=cfg.contrast,
        cfg=cfg,
        task=replace(search_task(), annotator=OfTheGrammar()),
        models=LoadedPair(cfg.pair, "cpu"),
        problems={split: [one for one in posed if one.split == split] for split in SPLITS},
        behaviours=cfg.contrast.behaviours,
        parts=Parts(tmp_path),
        console=Console(io.StringIO()),
    )
    setting.traces = rollouts(setting)
    setting.places = places_of(setting.traces, setting.behaviours)
    exact = by_name(onset_rates(setting, onset_log_probs(setting)))
    found = by_name(sampled_onsets(setting))
    held = []
    for behaviour in setting.behaviours:
        for measure in (PER_OPPORTUNITY, OWN_TRACES, PER_TRACE):
            for model in (*MODELS, "rl-base"):
                name = behaviour, measure, model
                one, truth = found[name], exact[name].value
                width = one.high - one.low
                assert one.low - width / 2 <= truth <= one.high + width / 2, name
                held.append(one.low <= truth <= one.high)
    assert sum(held) >= 0.8 * len(held)
    # The measures that a verdict asks for are there under the same names, at both levels.
    of_rates = {
        (m.measure, m.model, m.level) for m in onset_rates(setting, onset_log_probs(setting))
    }
    assert of_rates <= {(m.measure, m.model, m.level) for m in sampled_onsets(setting)}
