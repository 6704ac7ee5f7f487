"""Every stage on a pair of Qwen2's shape that answers sums in words, and what it refuses."""

import io
import json
from pathlib import Path

import pytest
from jobs.natural import sums_experiment

from sae_reasoning.config import Config, ConfigError, PairConfig
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import load
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.ablate import ablate
from sae_reasoning.jobs.cache import cache
from sae_reasoning.jobs.contrast import contrast
from sae_reasoning.jobs.contrast.setting import open_setting
from sae_reasoning.jobs.elicit import elicit
from sae_reasoning.jobs.hybrid import hybrid
from sae_reasoning.jobs.rank import rank
from sae_reasoning.jobs.report import report
from sae_reasoning.jobs.traces import traces
from sae_reasoning.jobs.train import train

pytestmark = pytest.mark.e2e
STAGES = (traces, cache, train, rank, ablate, contrast, hybrid, elicit, report)
ABSENT = "verification"


def experiment(pair: PairConfig, folder: Path) -> Config:
    """Sums with two behaviours, of which neither model makes the second."""
    cfg = sums_experiment(pair, folder)
    cfg.behaviours = ["backtracking", ABSENT]
    cfg.traces.cues = {"backtracking": ["wait"], ABSENT: ["let me verify"]}
    cfg.traces.meanings[ABSENT] = "checks a result."
    own = cfg.contrast
    own.select_problems, own.report_problems, own.samples, own.max_new_tokens = 8, 8, 3, 48
    own.onset_places, own.onset_samples, own.behaviour_tokens = 40, 3, 12
    own.report_starts = own.value_starts = 8
    own.select_starts = own.value_select_starts = 4
    own.completions, own.pilot_samples, own.value_openings, own.own_tries = 2, 2, 2, 2
    own.controls, own.doses, own.vectors = 1, [1.0], ["gradient"]
    own.pass_problems, own.pass_samples, own.corrupted_traces, own.bootstrap = 4, 4, 8, 50
    return cfg


def run(cfg: Config, *stages: object) -> str:
    out = io.StringIO()
    for stage in stages:
        stage(cfg, tracker=NullTracker(), console=Console(out, verbose=True))  # type: ignore[operator]
    return " ".join(out.getvalue().split())


@pytest.fixture(scope="module")
def made(
    qwen_sums_pair: PairConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, str]:
    """A config of which every stage has been made, and what was said."""
    cfg = experiment(qwen_sums_pair, tmp_path_factory.mktemp("natural_pair"))
    cfg.train.steps = 200
    own = cfg.hybrid
    own.budgets, own.num_problems, own.select_problems, own.select_traces = [0.2], 3, 2, 16
    own.end_samples, own.doses, own.multiples, own.places, own.steps = 1, [1.0], [1.0], 8, 3
    own.draws, own.max_new_tokens, own.batch_size, own.bootstrap = 1, 40, 64, 20
    own = cfg.elicit
    own.report_problems, own.select_problems, own.choose_problems, own.samples = 4, 4, 2, 1
    own.attempts, own.critique_rates, own.critique_steps, own.critique_batch = 8, [1e-3], [2], 2
    own.critique_rank = 4
    own.rl_prompts = own.rl_samples = own.gate_steps = own.bias_steps = 2
    own.gate_rates = own.bias_rates = [0.03]
    own.best_problems, own.best_of, own.max_new_tokens, own.bootstrap = 2, [1, 2], 40, 20
    own.hybrid_budget = 1.0
    cfg.report.min_opportunities = cfg.report.min_problems = cfg.report.min_starts = 2
    return cfg, run(cfg, *STAGES)


def test_every_stage_is_made_and_the_next_reads_it(made: tuple[Config, str]) -> None:
    cfg, _ = made
    for stage in STAGES:
        assert (cfg.folder / stage.__name__ / "manifest.json").exists()
    measures = set(read_table(cfg.folder / "contrast" / "contrast.parquet").measure)
    assert {"annotated/per_trace", "onset_probability/per_opportunity", "pass@k"} <= measures
    assert {"execution_value", "steered/started", "kl/share"} <= measures
    page = (cfg.folder / "report" / "index.html").read_text("utf-8")
    assert "How: execution value" in page and "Hybrid: the base, steered" in page
    elicited = read_table(cfg.folder / "elicit" / "elicit.parquet")
    assert {"critiques", "tools", "gate", "hybrid"} <= set(elicited.intervention)
    assert run(cfg, *STAGES).count("is up to date") == len(STAGES)


def test_texts_end_in_either_of_two_tokens_behind_the_chat_template(
    made: tuple[Config, str],
) -> None:
    cfg, _ = made
    lm = load(cfg.pair.rl, "cpu")
    ends = {*lm.tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])}
    assert ends <= set(lm.end_ids)
    found = read_traces(cfg.folder / "traces" / "traces.parquet")
    whole = [trace for trace in found if not trace.truncated]
    assert {trace.token_ids[-1] for trace in whole} == ends
    assert not any("<|im_end|>" in trace.text or "</s>" in trace.text for trace in whole)
    before = lm.decode(list(found[0].token_ids[: found[0].num_prompt_tokens]))
    assert before.endswith("assistant\n")


def test_a_behaviour_that_neither_model_makes_is_told_and_the_other_is_judged(
    made: tuple[Config, str],
) -> None:
    cfg, said = made
    assert f"{ABSENT}: too few spans by rl for both splits; skipped there" in said
    both = json.loads((cfg.folder / "report" / "verdict.json").read_text("utf-8"))["verdicts"]
    one, absent = both
    assert absent["verdict"] in ("unchanged", "inconclusive")
    assert absent["reason"].endswith("; neither model starts it in any trace")
    assert "the RL model starts backtracking" in one["reason"]
    assert "missing" not in one["reason"]


def test_without_headroom_what_rests_on_answers_is_left_out_with_both_accuracies_and_a_remedy(
    qwen_sums_pair: PairConfig, tmp_path: Path
) -> None:
    cfg = experiment(qwen_sums_pair, tmp_path)
    source = Path(cfg.traces.source)
    rows = [
        json.loads(line) | {"answer": "1000"} for line in source.read_text("utf-8").splitlines()
    ]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    cfg.report.min_opportunities = cfg.report.min_problems = cfg.report.min_starts = 2
    said = run(cfg, traces, contrast, report)
    told = said[said.index("== contrast") :]
    assert "no headroom: base 0.0% right [0.0%, " in told and "; rl 0.0% right [0.0%, " in told
    assert f"Take easier problems into {source}" in told
    assert "Set it to always to value executions all the same" in told
    assert told.index("no headroom") < told.index("contrast: base answers")
    missing = read_json(cfg.folder / "contrast" / "missing.json")["measures"]
    assert missing["execution value"] == ["headroom in answers"]
    assert missing["steering vectors"] == ["executions that are judged or valued"]
    measures = set(read_table(cfg.folder / "contrast" / "contrast.parquet").measure)
    assert "onset_probability/per_opportunity" in measures
    assert not any(one.startswith(("execution_value", "steered/")) for one in measures)
    both = json.loads((cfg.folder / "report" / "verdict.json").read_text("utf-8"))["verdicts"]
    assert "no headroom in answers" in both[0]["reason"]
    for chosen, is_valued in (("always", True), ("auto", False), ("never", False)):
        cfg.contrast.execution_value = chosen
        setting = open_setting(cfg, tmp_path / "parts", Console(io.StringIO()))
        assert setting.is_valued == is_valued


def test_rollouts_in_which_nothing_is_annotated_are_refused(
    qwen_sums_pair: PairConfig, tmp_path: Path
) -> None:
    cfg = experiment(qwen_sums_pair, tmp_path)
    cfg.traces.cues = {"backtracking": ["zebra"], ABSENT: ["let me verify"]}
    run(cfg, traces)
    with pytest.raises(
        ConfigError,
        match=r"traces\.annotator=cues marks none of backtracking, verification in 96 rollouts.*"
        r"name words that they use \(traces\.cues\)",
    ):
        run(cfg, contrast)
