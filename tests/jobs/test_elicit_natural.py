"""The elicitation table in natural text, on two stages of a short training on sums."""

import io
from pathlib import Path

import pandas as pd
import pytest
from jobs.natural import sums_experiment

from sae_reasoning.config import Config, PairConfig
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.elicit import elicit
from sae_reasoning.jobs.traces import traces
from sae_reasoning.tasks.text.instructions import THINK
from sae_reasoning.tasks.text.tutor import TEMPLATES

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made(sums_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, str]:
    """A config whose traces and elicitation have been made, and what was said."""
    cfg = sums_experiment(sums_pair, tmp_path_factory.mktemp("sums"))
    own = cfg.elicit
    own.report_problems, own.select_problems, own.choose_problems, own.samples = 8, 8, 4, 2
    own.attempts, own.critique_rates, own.critique_steps, own.critique_batch = 16, [1e-3], [2], 2
    own.critique_rank = 4
    own.rl_prompts = own.rl_samples = own.gate_steps = own.bias_steps = 2
    own.gate_rates = own.bias_rates = [0.03]
    own.best_problems, own.best_of, own.max_new_tokens, own.bootstrap = 4, [1, 4], 48, 50
    out = io.StringIO()
    for stage in (traces, elicit):
        stage(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return cfg, out.getvalue()


def table_of(cfg: Config) -> pd.DataFrame:
    return read_table(cfg.folder / "elicit" / "elicit.parquet")


def test_every_intervention_that_words_allow_is_tried_and_the_rest_is_said(
    made: tuple[Config, str],
) -> None:
    cfg, said = made
    found = table_of(cfg)
    conditions = set(found.intervention + ": " + found.condition)
    assert conditions == {
        *("base: as it is", "rl: as it is"),
        *("prompt: asked to think", "prompt: answer prefix forced"),
        *("tools: behaviours in the prompt", "tools: openings forced at the rate of RL"),
        "tools: other words forced as often",
        *("critiques: critiques", "critiques: right attempts", "critiques: shuffled critiques"),
        *("gate: trained", "gate: random", "biases: trained", "biases: random"),
        *("best-of: k=1", "best-of: k=4"),
    }
    missing = read_json(cfg.folder / "elicit" / "missing.json")["interventions"]
    assert missing == {
        "prompt: thinking prefix forced": ["thinking prefix"],
        "best-of: control": ["random procedure that answers problems"],
    }
    assert "left out: prompt: thinking prefix forced; missing: thinking prefix" in said


def test_accuracies_are_those_of_graded_answers_and_best_of_more_is_no_worse(
    made: tuple[Config, str],
) -> None:
    cfg, _ = made
    found = table_of(cfg).set_index(["intervention", "condition"])
    for name in ("base", "rl"):
        own = read_table(cfg.folder / "elicit" / "rollouts" / f"{name}_as_it_is.parquet")
        graded = own.dropna(subset=["correct"])
        by_problem = graded.correct.astype(float).groupby(graded.problem_id).mean()
        assert found.accuracy[name, "as it is"] == pytest.approx(by_problem.mean())
    assert 0 < found.accuracy["best-of", "k=4"] >= found.accuracy["best-of", "k=1"]
    assert found.backtracking["base", "as it is"] > 0
    assert found["backtracking/right"].isna().all()  # Nothing says which are right.


def test_prompts_ask_in_words_and_the_instruction_is_paid_for(made: tuple[Config, str]) -> None:
    cfg, _ = made
    lm = load(cfg.pair.base, "cpu")
    found = table_of(cfg).set_index(["intervention", "condition"]).prompt_tokens
    asked = found["prompt", "asked to think"]
    assert asked == pytest.approx(len(lm.tokenizer(f"\n\n{THINK}").input_ids), abs=3)
    assert found["tools", "behaviours in the prompt"] > 0
    assert found["base", "as it is"] == 0


def test_critiques_are_made_of_the_bases_own_attempts_and_train_an_adapter(
    made: tuple[Config, str],
) -> None:
    cfg, _ = made
    folder = cfg.folder / "elicit" / "trained"
    attempts = [read_json(path)["attempts"] for path in sorted(folder.glob("attempts_*.json"))]
    grades = [{one["correct"] for one in own if not one["truncated"]} for own in attempts]
    assert any(own == {True, False} for own in grades)
    saved = {path.name for path in (folder / "critiques").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= saved
    cfg.pair.base.adapter = str(folder / "critiques")
    adapted = load(cfg.pair.base, "cpu")
    cfg.pair.base.adapter = ""
    assert adapted.facts.name.endswith("critiques")
    found = table_of(cfg).set_index("condition")
    assert found.trained_values["critiques"] == found.trained_values["right attempts"] > 0
    assert (
        found.trained_values["critiques"]
        < 30_000
        < sum(p.numel() for p in load(cfg.pair.rl, "cpu").model.parameters())
    )
    assert all(len(both) == 2 for both in TEMPLATES)


def test_openings_come_as_often_as_the_rl_model_begins_and_other_words_where_they_do(
    made: tuple[Config, str],
) -> None:
    cfg, _ = made
    folder = cfg.folder / "elicit" / "rollouts"
    forced, other = (
        read_table(folder / f"tools_{name}.parquet")
        for name in ("openings_forced_at_the_rate_of_RL", "other_words_forced_as_often")
    )
    assert 0 < forced.num_openings.sum() < forced.num_ends.sum()
    assert forced.num_written.sum() >= forced.num_openings.sum() > 0
    assert other.num_openings.sum() > 0
    assert forced["made/backtracking"].sum() > 0


def test_a_second_run_does_nothing(made: tuple[Config, str]) -> None:
    cfg, _ = made
    out = io.StringIO()
    elicit(cfg, tracker=NullTracker(), console=Console(out))
    assert "is up to date" in out.getvalue()


def test_without_grades_nothing_is_trained_and_no_gap_is_claimed(
    sums_pair: PairConfig, tmp_path: Path
) -> None:
    cfg = sums_experiment(sums_pair, tmp_path)
    source = Path(cfg.traces.source)
    ungraded = source.read_text("utf-8").replace('"answer"', '"note"')
    source.write_text(ungraded, encoding="utf-8")
    cfg.traces.num_problems = 8
    own = cfg.elicit
    own.report_problems, own.select_problems, own.choose_problems, own.samples = 2, 2, 1, 1
    own.max_new_tokens, own.bootstrap = 8, 10
    out = io.StringIO()
    for stage in (traces, elicit):
        stage(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    found = table_of(cfg)
    assert set(found.intervention) == {"base", "rl", "prompt", "tools"}
    assert found.accuracy.isna().all() and not found.gap_defined.any()
    assert "no gap to recover" in out.getvalue()
    missing = read_json(cfg.folder / "elicit" / "missing.json")["interventions"]
    assert missing["gate: trained"] == missing["best-of: samples"] == ["graded answers"]
