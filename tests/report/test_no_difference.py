"""The verdict where there is no difference: halves of one model's samples."""

import numpy as np
import pytest

from sae_reasoning.compose import ROOT, compose
from sae_reasoning.config import ModelConfig, ReportConfig
from sae_reasoning.contrast.measures import Measure, Resampling, compared
from sae_reasoning.contrast.rates import PER_OPPORTUNITY, PER_TRACE
from sae_reasoning.edges.lm.load import load
from sae_reasoning.opening.problems import draw_search_problems
from sae_reasoning.report.verdict import verdict
from sae_reasoning.rollouts.respond import Sampling, prefix_of, respond
from sae_reasoning.steering.noise import Noise
from sae_reasoning.tasks.protocol import ResponseFormat
from sae_reasoning.tasks.search.task import SearchGrader
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.task import text_task

BEHAVIOURS = ("uncertainty-estimation", "backtracking", "verification")
SAMPLES = 8


def able(behaviour: str) -> list[Measure]:
    """Executions that would make any rate that is up deployed."""
    given = {
        ("execution_value", "rl", "own opening"): (0.8, 0.75, 0.85),
        ("execution_value", "base", "own opening"): (0.8, 0.75, 0.85),
        ("value_over/displaced", "rl", "own opening"): (0.5, 0.4, 0.6),
        ("value_skill/displaced", "base", "own opening"): (1.0, 0.9, 1.0),
        ("value_skill/displaced", "rl-base", "own opening"): (0.0, 0.0, 0.1),
        ("steered/value_skill/displaced", "base", "steering vector"): (0.9, 0.8, 1.0),
        ("steered/value_skill_over/displaced", "base", "none"): (0.9, 0.8, 1.0),
    }
    return [Measure(behaviour, *key, *bounds, 0.95, 100, 150) for key, bounds in given.items()]


@pytest.mark.slow
def test_halves_of_one_models_samples_hardly_ever_differ() -> None:
    cfg = compose(["pair=organism_deployed_llama", "task=text", "traces.num_problems=120"])
    problems = draw_search_problems(cfg)[:60]
    task = text_task(
        CueAnnotator(cfg.traces.cues, BEHAVIOURS),
        {"base": ResponseFormat("<think>"), "rl": ResponseFormat("<think>")},
        SearchGrader(),
    )
    lm = load(ModelConfig(path=str(ROOT / "data/organisms/search_rl_llama")), "cpu")
    rows = [(problem, sample) for problem in problems for sample in range(SAMPLES)]
    made = respond(
        lm,
        [prefix_of(lm, p.prompt, p.key, sample, begun="<think>") for p, sample in rows],
        Sampling(Noise("halves", 0), 1.0, 280),
    )
    said = [
        task.annotator.annotate(p, one.text, truncated=one.truncated)
        for (p, _), one in zip(rows, made, strict=True)
    ]
    shape = (len(problems), SAMPLES)
    spans = {
        b: np.array([sum(s.behaviour == b for s in one.spans) for one in said]).reshape(shape)
        for b in BEHAVIOURS
    }
    offered = np.array([len(one.opportunities) / len(BEHAVIOURS) for one in said]).reshape(shape)
    rng = np.random.default_rng(0)
    given = []
    for _ in range(200):
        order = np.argsort(rng.random(shape), axis=1)
        halves = (order[:, : SAMPLES // 2], order[:, SAMPLES // 2 :])
        how = Resampling(200, int(rng.integers(1 << 31)))
        for behaviour in BEHAVIOURS:
            counted = [np.take_along_axis(spans[behaviour], half, 1).sum(1) for half in halves]
            places = [np.take_along_axis(offered, half, 1).sum(1) for half in halves]
            found = able(behaviour)
            for name, below in (
                (PER_TRACE, [np.full(len(problems), SAMPLES // 2)] * 2),
                (PER_OPPORTUNITY, places),
            ):
                sums = np.stack([np.stack(counted, 1), np.stack(below, 1)], axis=-1)
                items = (int(below[0].sum()), int(below[1].sum()))
                found += compared(how, behaviour, name, sums[:, :, None].astype(float), items)
            given.append(verdict(behaviour, found, ReportConfig(), annotator="cues").verdict)
    other = np.mean([one not in ("unchanged", "inconclusive") for one in given])
    assert len(given) == 600
    assert other <= 0.05
    assert given.count("unchanged") > 300
