"""The hybrid stage, on two stages of a short training that babble."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from projects import Project
from recorded import hold_to_record

from sae_reasoning.compose import compose
from sae_reasoning.config import ConfigError
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import generate
from sae_reasoning.edges.lm.load import encode_prompt, load
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.jobs.hybrid import hybrid
from sae_reasoning.steering.noise import Noise, keyed_sampler
from sae_reasoning.steering.recovery import COLUMNS


def run(project: Project, *options: str) -> str:
    out = io.StringIO()
    cfg = compose([*project.options, f"runs={project.folder}/runs", *options])
    hybrid(cfg, tracker=NullTracker(), console=Console(out, verbose=True))
    return out.getvalue()


def test_every_policy_has_its_rows_on_report_problems(made_hybrid: Project) -> None:
    folder = made_hybrid.results / "hybrid"
    hold_to_record(folder)
    found = read_table(folder / "hybrid.parquet")
    assert list(found.columns) == COLUMNS
    assert set(found.policy) == {
        *("base", "rl", "always", "global-bias", "token-swap", "cue-word"),
        *("oracle", "latent", "random", "random-vector", "magnitude-only"),
        "reverse-token-swap",
    } | (set(found.policy) & {"random-category"})
    swaps = found[found.policy.isin(["token-swap", "reverse-token-swap"])]
    assert {"wherever they differ", "most divergent", "at random where they differ"} <= set(
        swaps.vector
    )
    curves = found[found.policy.isin(["oracle", "latent", "random"])]
    assert set(curves.vector) <= {"sae", "mean-difference", "trained"}
    assert set(curves.budget) == {0.05, 0.3}
    assert found.share_steered.between(0, 1).all()
    assert (found.share_steered[found.policy == "base"] == 0).all()
    assert (found.share_steered[found.policy == "rl"] == 0).all()
    undefined = found[~found.defined]
    assert undefined.gap_recovered.isna().all()
    rollouts = read_table(folder / "generations.parquet")
    assert set(rollouts.policy[rollouts.writer == "rl"]) == {"rl", "reverse-token-swap"}
    assert set(rollouts.writer[rollouts.policy == "rl"]) == {"rl"}  # Hence graded as such.
    assert (rollouts.num_steered == rollouts.steered_positions.map(len)).all()
    assert rollouts.num_steered[rollouts.policy == "random"].sum() > 0
    splits = {
        t.problem_id: t.split for t in read_traces(made_hybrid.results / "traces/traces.parquet")
    }
    assert {splits[problem] for problem in rollouts.problem_id} == {"report"}
    assert {path.name for path in folder.iterdir()} == {
        *("hybrid.parquet", "generations.parquet", "choices.json", "hybrid.png", "manifest.json"),
    }
    assert read_json(folder / "choices.json")["multiples"].keys() <= {
        *("sae", "mean-difference", "trained"),
    }


@pytest.mark.parametrize("model", ["base", "rl"])
def test_the_ends_of_the_gap_are_what_each_model_says_alone(
    made_hybrid: Project, model: str
) -> None:
    """Never steering is the writer's generation."""
    cfg = compose([*made_hybrid.options])
    lm = load(getattr(cfg.pair, model), "cpu")
    rollouts = read_table(made_hybrid.results / "hybrid" / "generations.parquet")
    own = rollouts[rollouts.policy == model]
    assert len(own) == cfg.hybrid.num_problems * cfg.hybrid.end_samples
    keys = Noise("hybrid", cfg.hybrid.seed).keys(
        [(int(p[1:]), s) for p, s in zip(own.problem_id, own["sample"], strict=True)]
    )
    made_alone = generate(
        lm,
        [encode_prompt(lm.tokenizer, prompt) for prompt in own.prompt],
        sampler=keyed_sampler(keys, cfg.hybrid.temperature),
        max_new_tokens=cfg.hybrid.max_new_tokens,
        batch_size=4,
    )
    alone = {rollout.row: lm.decode(list(rollout.token_ids)) for rollout in made_alone}
    assert [alone[row] for row in range(len(own))] == own.text.tolist()


def test_a_second_run_does_nothing(made_hybrid: Project) -> None:
    assert "is up to date" in run(made_hybrid)


@pytest.mark.e2e
def test_a_killed_run_goes_on_from_its_parts_and_the_same_seed_gives_the_same_tables(
    made_hybrid: Project, made_project: Project, tmp_path: Path
) -> None:
    again = made_project.copy(tmp_path, "traces", "train", "rank")
    killed = again.run("hybrid", die_at=4)
    assert killed.code == -9, killed.output
    (partial,) = again.results.glob("hybrid.partial-*")
    assert (partial / "parts" / "timing.json").exists()
    assert (partial / "parts" / "vectors.json").exists()
    resumed = again.run("hybrid")
    assert resumed.code == 0, resumed.output
    for name in ("hybrid.parquet", "generations.parquet"):
        pd.testing.assert_frame_equal(
            *(read_table(project.results / "hybrid" / name) for project in (made_hybrid, again))
        )
    assert (
        read_json(made_hybrid.results / "hybrid/choices.json")
        == read_json(again.results / "hybrid/choices.json")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("hybrid.behaviours=[deducing]", r"hybrid\.behaviours: deducing isn't tracked"),
        ("hybrid.vectors=[bias]", r"hybrid\.vectors=\['bias'\] must be one or more of sae"),
        ("hybrid.budgets=[0,0.1]", r"hybrid\.budgets=.*shares above 0"),
        ("hybrid.multiples=[]", r"hybrid\.multiples=\[\] must be positive"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    made_hybrid: Project, option: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run(made_hybrid, option)


def test_a_missing_shortlist_is_named(made_project: Project, tmp_path: Path) -> None:
    project = made_project.copy(tmp_path, "traces", "train", "rank")
    shutil.rmtree(project.results / "rank")
    with pytest.raises(ValueError, match="run `make rank` first"):
        run(project)
