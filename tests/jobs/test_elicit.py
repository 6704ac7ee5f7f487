"""The elicitation table, on two stages of a short training that babble."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from projects import Project
from recorded import hold_to_record

from sae_reasoning.compose import compose
from sae_reasoning.config import Config, ConfigError, GrpoConfig
from sae_reasoning.config.elicit import INTERVENTIONS
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attach import (
    Attachment,
    ControlToken,
    LayerBiases,
    attached_reader,
    random_twin_of,
    set_values,
)
from sae_reasoning.edges.lm.load import encode_prompt, load
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.edges.tracker import NullTracker
from sae_reasoning.elicitation import lessons, trainings
from sae_reasoning.elicitation.table import columns
from sae_reasoning.jobs.elicit import elicit, interventions
from sae_reasoning.jobs.elicit.setting import open_setting, roll
from sae_reasoning.organisms.grpo import Episode, reinforce
from sae_reasoning.organisms.pretrain import Run
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.search.task import FORMAT

CHEAP = [name for name in INTERVENTIONS if name != "hybrid"]


def config(project: Project, *options: str) -> Config:
    return compose([*project.options, f"runs={project.folder}/runs", *options])


def run(project: Project, *options: str) -> str:
    out = io.StringIO()
    elicit(config(project, *options), tracker=NullTracker(), console=Console(out, verbose=True))
    return out.getvalue()


def table_of(project: Project) -> pd.DataFrame:
    return read_table(project.results / "elicit" / "elicit.parquet")


@pytest.fixture(scope="module")
def made(made_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the stage has been made; nobody touches it."""
    project = made_project.copy(tmp_path_factory.mktemp("elicit"), "traces")
    said = run(project)
    assert "run `make hybrid`" in said
    return project


def test_tables_are_the_recorded_ones(made: Project) -> None:
    hold_to_record(made.results / "elicit")


def test_every_intervention_has_a_control_beside_it_and_report_problems_alone(
    made: Project,
) -> None:
    found = table_of(made)
    cfg = config(made)
    assert list(found.columns) == columns(cfg.behaviours)
    for name in CHEAP:
        assert {"intervention", "control"} == set(found.role[found.intervention == name]), name
    splits = {t.problem_id: t.split for t in read_traces(made.results / "traces/traces.parquet")}
    for path in (made.results / "elicit" / "rollouts").iterdir():
        assert {splits[problem] for problem in read_table(path).problem_id} == {"report"}
    undefined = found[~found.gap_defined.astype(bool)]
    assert undefined.gap_recovered.isna().all()
    untrained = found.intervention.isin(["prompt", "tools"])
    assert (found.training_tokens[untrained] == 0).all()
    of_parts = found.intervention.isin(["gate", "biases"])
    trained = found[of_parts & (found.role == "intervention")]
    assert (trained.training_tokens > 0).all()
    tuned = found[found.intervention == "critiques"].set_index("condition").training_tokens
    assert tuned["critiques"] > tuned["direct answers"] > 0


def test_a_second_run_does_nothing(made: Project) -> None:
    assert "is up to date" in run(made)


def test_what_an_organism_cannot_read_is_left_out_and_said(made: Project) -> None:
    missing = read_json(made.results / "elicit" / "missing.json")["interventions"]
    assert missing == {"prompt: asked to think": ["instructions"]}


def test_openings_are_forced_and_counted_in_thoughts_alone(made: Project) -> None:
    folder = made.results / "elicit" / "rollouts"
    found = read_table(folder / "tools_openings_forced_at_opportunities.parquet")
    assert found.num_openings.sum() > 0
    assert (found.num_written >= found.num_openings).all()
    assert (found.num_openings <= found.num_ends).all()
    free = read_table(folder / "prompt_thinking_prefix_forced.parquet")
    untouched = found.num_openings == 0
    assert found.text[untouched].tolist() == free.text[untouched].tolist()


def test_an_intervention_that_does_nothing_says_what_the_base_says(made: Project) -> None:
    """Noise is common, so an attachment of zeros gives the base's rollouts word by word."""
    setting = open_setting(config(made), made.results / "elicit", Console(io.StringIO()))
    base, lm = read_table(made.results / "elicit/rollouts/base_as_it_is.parquet"), setting.pair.base
    for new in (ControlToken, LayerBiases):
        part = new(lm)
        assert roll(setting, lm, part=part).text.tolist() == base.text.tolist()
        set_values(part, torch.full_like(part.values, 3.0))
        assert roll(setting, lm, part=part).text.tolist() != base.text.tolist()
    assert roll(setting, lm).text.tolist() == base.text.tolist()  # All is detached.


@pytest.mark.parametrize("new", [ControlToken, LayerBiases])
def test_frozen_weights_stay_frozen_when_a_part_is_trained(
    made: Project, new: type[ControlToken] | type[LayerBiases], tmp_path: Path
) -> None:
    lm = load(config(made).pair.base, "cpu")
    before = {name: weight.clone() for name, weight in lm.model.named_parameters()}
    part = new(lm)
    assert [name for name, _ in part.named_parameters()] == ["values"]
    token = lm.tokenizer.eos_token_id

    def roll_out(prompts: list[str], _starts: object, keys: torch.Tensor) -> list[Episode]:
        return [
            Episode(
                part.prompt(encode_prompt(lm.tokenizer, prompt)),
                [token + 1 + int(key) % 2],
                "right" if key % 2 else "wrong",
            )
            for prompt, key in zip(prompts, keys[:, 2], strict=True)
        ]

    config_of_steps = GrpoConfig(
        steps=2, prompts=2, samples=4, lr=0.1, kl=0.0, warmup=1, checkpoint_every=2
    )
    prompt = read_traces(made.results / "traces/traces.parquet")[0].prompt
    for _ in reinforce(
        part,
        config_of_steps,
        lambda _: trainings.Asked(Problem("", "", prompt)),
        Run(0, attached_reader(lm), lm.tokenizer.pad_token_id, tmp_path / "state.safetensors"),
        roll_out=roll_out,
        reward=lambda _, episode: float(episode.text == "right"),
        form=FORMAT,
    ):
        pass
    assert part.values.abs().max() > 0
    for name, weight in lm.model.named_parameters():
        assert torch.equal(weight, before[name]), name
        assert weight.grad is None


def test_the_random_twin_of_a_part_is_as_long_and_another(made: Project) -> None:
    part: Attachment = LayerBiases(load(config(made).pair.base, "cpu"))
    set_values(part, torch.arange(part.values.numel()).reshape(part.values.shape).float())
    twin = random_twin_of(part, 0).values
    torch.testing.assert_close(twin.norm(dim=-1), part.values.norm(dim=-1))
    assert not torch.allclose(twin, part.values)
    torch.testing.assert_close(twin, random_twin_of(part, 0).values)


def test_rates_are_chosen_by_the_select_split_and_the_chosen_one_is_paid_for(
    made: Project,
) -> None:
    tried = read_json(made.results / "elicit" / "trained" / "biases.json")
    assert [one["rate"] for one in tried] == config(made).elicit.bias_rates
    best = max(tried, key=lambda one: one["select_accuracy"])
    found = table_of(made)
    (own,) = found[(found.intervention == "biases") & (found.condition == "trained")].itertuples()
    assert own.training_tokens == best["tokens"] > 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Prompts that trainings see, as they see them."""
    found: set[str] = set()
    learn, reinforce = lessons.learn, trainings.reinforce

    def learning(*args: Any, **kwargs: Any) -> Any:
        def encode(text: str) -> list[int]:
            found.add(text)
            return kwargs["encode_prompt"](text)  # type: ignore[no-any-return]

        return learn(*args, **{**kwargs, "encode_prompt": encode})

    def reinforcing(*args: Any, **kwargs: Any) -> Any:
        def roll_out(prompts: list[str], *rest: Any) -> list[Episode]:
            found.update(prompts)
            return kwargs["roll_out"](prompts, *rest)  # type: ignore[no-any-return]

        return reinforce(*args, **{**kwargs, "roll_out": roll_out})

    monkeypatch.setattr(lessons, "learn", learning)
    monkeypatch.setattr(trainings, "reinforce", reinforcing)
    return found


@pytest.mark.e2e
def test_a_killed_run_goes_on_from_its_parts_and_the_same_seed_gives_the_same_table(
    made: Project,
    made_project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: set[str],
) -> None:
    """And trainings see neither report problems nor those on which their rates are chosen."""
    again = made_project.copy(tmp_path, "traces")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(interventions, "_best_of", killed)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    traces = read_traces(again.results / "traces" / "traces.parquet")
    select = list(dict.fromkeys(t.prompt for t in traces if t.split == "select"))
    own = config(again).elicit
    training = select[: own.select_problems][: -own.choose_problems]
    assert len(training) == 2
    assert seen
    assert seen <= set(training)
    seen.clear()
    (partial,) = again.results.glob("elicit.partial-*")
    assert (partial / "rollouts" / "biases_trained.parquet").exists()
    said = run(again)
    assert "elicit: best-of, samples" in said
    assert "elicit: biases" not in said
    assert not seen
    pd.testing.assert_frame_equal(table_of(made), table_of(again))


@pytest.mark.slow
def test_another_table_of_the_hybrid_costs_no_rollouts(
    made_hybrid: Project, made: Project, tmp_path: Path
) -> None:
    """And a hybrid of other traces, or of other options than now, isn't taken."""
    project = made_hybrid.copy(tmp_path, "traces", "train", "rank", "hybrid")
    made.copy(tmp_path, "elicit")
    said = run(project)
    assert "elicit: base" not in said
    assert set(table_of(project).intervention) >= {"hybrid"}
    said = run(project, "hybrid.samples=7")
    assert "without the hybrid; " in said and "hybrid.samples" in said
    assert "hybrid" not in set(table_of(project).intervention)
    run(project)
    assert set(table_of(project).intervention) >= {"hybrid"}
    manifest = project.results / "hybrid" / "manifest.json"
    fingerprint = read_json(project.results / "traces" / "manifest.json")["fingerprint"]
    manifest.write_text(manifest.read_text().replace(fingerprint, "0" * 16))
    assert "without the hybrid" in run(project)
    assert "hybrid" not in set(table_of(project).intervention)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("elicit.interventions=[pray]", r"elicit\.interventions=\['pray'\] must be one or more of"),
        ("elicit.means=[prompt]", r"elicit\.means is now elicit\.interventions"),
        ("elicit.think=now", r"elicit\.think is now elicit\.think_instruction"),
        ("elicit.critique_rank=-1", r"elicit\.critique_rank=-1 must be 0 or more; try 16"),
        ("elicit.gate_rates=[]", r"elicit\.gate_rates=\[\] must be positive numbers; try"),
        ("elicit.rl_samples=1", r"elicit\.rl_samples=1 leaves nothing to compare; raise it to 2"),
        (
            "elicit.choose_problems=4",
            r"elicit\.choose_problems=4 of 4 select problems leaves none to train biases, "
            r"critiques, gate on; lower it to 2, or raise elicit\.select_problems and traces\.num",
        ),
        ("elicit.hybrid_budget=0", r"elicit\.hybrid_budget=0.* must be a share above 0"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(made: Project, option: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(made, option)
