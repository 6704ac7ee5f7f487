"""The hybrid in natural text, on two stages of a short training on sums."""

import io

import pandas as pd
import pytest
from jobs.natural import sums_experiment

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import encode_prompt, load
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.elicit import elicit
from sae_reasoning.jobs.hybrid import hybrid
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train
from sae_reasoning.steering.noise import Noise, keyed_sampler

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made(sums_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, str]:
    """A config of which all stages up to the hybrid have been made, and what was said."""
    cfg = sums_experiment(sums_pair, tmp_path_factory.mktemp("hybrid_sums"))
    cfg.pair.rl.chat_template, cfg.pair.rl.prompt = False, "Please tell me. {question}"
    own = cfg.hybrid
    own.budgets, own.num_problems, own.select_problems, own.select_traces = [0.1, 0.5], 4, 2, 32
    own.end_samples, own.doses, own.multiples, own.places, own.steps = 2, [1.0], [1.0], 8, 3
    own.draws, own.max_new_tokens, own.batch_size, own.bootstrap = 1, 40, 64, 20
    own = cfg.elicit
    own.interventions = ["prompt", "hybrid"]
    own.report_problems, own.select_problems, own.choose_problems = 4, 4, 2
    own.samples, own.max_new_tokens, own.bootstrap, own.hybrid_budget = 1, 40, 20, 1.0
    cfg.train.steps = 200
    out = io.StringIO()
    for stage in (traces, cache, train, rank, hybrid, elicit):
        stage(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return cfg, out.getvalue()


def table_of(cfg: Config) -> pd.DataFrame:
    return read_table(cfg.folder / "hybrid" / "hybrid.parquet")


def test_policies_swaps_both_ways_and_controls_are_tried_in_words(made: tuple[Config, str]) -> None:
    cfg, _ = made
    found = table_of(cfg)
    assert set(found.policy) >= {
        *("base", "rl", "always", "global-bias", "oracle", "latent", "random", "random-vector"),
        *("token-swap", "reverse-token-swap", "magnitude-only"),
    }
    whole = found[found.behaviour == "all"].set_index(["policy", "vector"])
    everywhere = whole.loc[("reverse-token-swap", "wherever they differ")]
    assert everywhere.share_steered.item() > 0
    for policy in ("token-swap", "reverse-token-swap"):
        rising = whole.loc[(policy, "most divergent")].sort_values("budget").share_steered
        assert rising.is_monotonic_increasing
    rollouts = read_table(cfg.folder / "hybrid" / "generations.parquet")
    assert rollouts.correct.notna().all()
    assert set(rollouts.writer) == {"base", "rl"}


@pytest.mark.parametrize("model", ["base", "rl"])
def test_each_end_is_what_the_model_says_under_its_own_prompt(
    made: tuple[Config, str], model: str
) -> None:
    cfg, _ = made
    lm = load(getattr(cfg.pair, model), "cpu")
    rollouts = read_table(cfg.folder / "hybrid" / "generations.parquet")
    own = rollouts[rollouts.policy == model]
    keys = Noise("hybrid", cfg.hybrid.seed).keys(
        [(int(p[1:]), s) for p, s in zip(own.problem_id, own["sample"], strict=True)]
    )
    alone = generate(
        lm,
        [encode_prompt(lm.tokenizer, prompt) for prompt in own.prompt],
        sampler=keyed_sampler(keys, cfg.hybrid.temperature),
        max_new_tokens=cfg.hybrid.max_new_tokens,
        batch_size=4,
    )
    texts = {one.row: lm.decode(list(one.token_ids)) for one in alone}
    assert [texts[row] for row in range(len(own))] == own.text.tolist()


def test_the_hybrid_stands_in_the_elicitation_table_with_its_controls(
    made: tuple[Config, str],
) -> None:
    cfg, said = made
    found = read_table(cfg.folder / "elicit" / "elicit.parquet")
    own = found[found.intervention == "hybrid"]
    assert {"intervention", "control"} == set(own.role)
    assert "without the hybrid" not in said
    assert read_json(cfg.folder / "hybrid" / "choices.json")["timing"]["places"] > 0


def test_every_kind_of_vector_is_tried_where_any_behaviour_may_start_any_sentence(
    made: tuple[Config, str],
) -> None:
    cfg, said = made
    choices = read_json(cfg.folder / "hybrid" / "choices.json")
    found = {(one["kind"], one["behaviour"]) for one in choices["vectors"]}
    left_out = choices["vectors left out"]
    every = {(k, b) for k in cfg.hybrid.vectors for b in ("entry", *cfg.behaviours)}
    assert found | {tuple(name.split(", ")) for name in left_out} == every
    assert ("trained", "backtracking") in found
    assert not any("no place" in reason for reason in left_out.values())
    assert all(f"no vector: {name}; {reason}" in said for name, reason in left_out.items())
