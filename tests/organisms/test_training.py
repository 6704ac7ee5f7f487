"""What organisms are trained on and by: the corpus, the start of embeddings, GRPO's terms."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.config import GrpoConfig, PairConfig
from sae_reasoning.edges.lm.learn import plain_reader
from sae_reasoning.edges.lm.load import load
from sae_reasoning.organisms.corpus import CorpusConfig, Share, example, excerpt, mixture, reading
from sae_reasoning.organisms.grpo import (
    Episode,
    group_advantages,
    kl_estimates,
    reinforce,
)
from sae_reasoning.organisms.pretrain import Run, start_alike
from sae_reasoning.organisms.search_rl import any_of, midway, random_reward, right_answer
from sae_reasoning.tasks.protocol import ResponseFormat
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.task import FORMAT
from sae_reasoning.tasks.search.world import Difficulty, SearchProblem, entry, sample_problem


@given(st.integers(0, 10_000))
def test_a_reading_task_is_answered_by_what_the_prompt_says(seed: int) -> None:
    rng = random.Random(seed)
    problem = sample_problem(rng, Difficulty(), grammar.REMARKS)
    task, answer = reading(problem, rng)
    assert task.startswith(f"{problem.facts()} ; ")
    asked = re.search(r"; (map|notes) of (.+) \?$", task)
    assert asked
    lines = [
        entry(place, problem.entries[place])
        if asked[1] == "map"
        else f"{place}# {problem.notes[place]}"
        for place in asked[2].split()
    ]
    assert answer == f"{' . '.join(lines)} ."
    assert set(f"{task} {answer}".split()) <= set(grammar.vocabulary())


@given(st.floats(0, 1))
def test_a_share_holds_changes_and_settles(progress: float) -> None:
    share = Share(first=0.7, last=0.15, hold=0.5, settle=0.75)
    value = share.at(progress)
    assert 0.15 <= value <= 0.7
    if progress <= 0.5:
        assert value == 0.7
    if progress >= 0.75:
        assert value == pytest.approx(0.15)


@pytest.mark.parametrize(("hold", "settle"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_a_share_that_settles_before_it_holds_is_refused(hold: float, settle: float) -> None:
    with pytest.raises(ValueError, match="in order"):
        Share(1.0, 0.0, hold, settle)


def test_the_mixture_is_what_is_drawn() -> None:
    config, steps = CorpusConfig(), 400
    rng = random.Random(0)
    drawn = [example(rng, config, step / steps) for step in range(steps) for _ in range(5)]
    told = mixture(config, steps)
    traces = sum(response.startswith(grammar.THINK) for _, response in drawn) / len(drawn)
    direct = sum(response.startswith(grammar.ANSWER) for _, response in drawn) / len(drawn)
    assert (traces, direct) == pytest.approx((told.traces, told.direct), abs=0.04)
    assert told.traces + told.direct + told.readings == pytest.approx(1)


def test_an_excerpt_changes_with_the_worlds_words(monkeypatch: pytest.MonkeyPatch) -> None:
    before = excerpt(CorpusConfig(), 0)
    assert excerpt(CorpusConfig(), 0) == before
    shorter = grammar.OPENINGS | {grammar.BACKTRACKING: ("wait , dead end , back to",)}
    monkeypatch.setattr(grammar, "OPENINGS", shorter)
    assert excerpt(CorpusConfig(), 0) != before


def test_words_of_one_place_start_alike_and_as_long_as_others() -> None:
    embeddings = torch.randn(300, 128, generator=torch.Generator().manual_seed(3))
    before = embeddings.clone()
    start_alike(embeddings, [(0, 1, 2), (3, 4, 5)], seed=0)
    cosine = torch.nn.functional.cosine_similarity
    assert torch.equal(embeddings[6:], before[6:])
    assert cosine(embeddings[0], embeddings[1], dim=0) > 0.4
    assert cosine(embeddings[0], embeddings[3], dim=0).abs() < 0.35
    assert embeddings[:6].norm(dim=1).mean() == pytest.approx(128**0.5, rel=0.15)


def test_the_kl_estimate_is_right_on_average_and_never_negative() -> None:
    torch.manual_seed(0)
    learner, reference = torch.randn(2, 6).log_softmax(-1)
    drawn = torch.multinomial(learner.exp(), 200_000, replacement=True)
    estimates = kl_estimates(-learner[drawn], -reference[drawn])
    exact = (learner.exp() * (learner - reference)).sum()
    assert estimates.min() >= 0
    assert estimates.mean().item() == pytest.approx(exact.item(), rel=0.05)


def test_groups_that_earn_the_same_teach_nothing() -> None:
    advantages = group_advantages(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    assert advantages.tolist() == [[0.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]


def _tokens(prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor) -> list[Episode]:
    """Rollouts that depend on their keys only: what the trainer makes of them is under test."""
    episodes = []
    for prompt, beginning, key in zip(prompts, beginnings, keys.tolist(), strict=True):
        rng = random.Random(f"{prompt}/{key}")
        written = [rng.randrange(3, 40) for _ in range(rng.randrange(2, 7))]
        episodes.append(Episode([1, 5, 6], written, f"{beginning} {'. ' * len(written)}".strip()))
    return episodes


def _odd(problem: SearchProblem, episode: Episode) -> float:
    return float(len(episode.response_ids) % 2)


def _reinforced(
    pair: PairConfig, state: Path, stop: int, steps: int = 20, kl: float = 0.02
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights before and after a training stopped at `stop`, and resumed if `state` is there."""
    lm = load(pair.base, "cpu")
    lm.model.requires_grad_(True)
    before = torch.cat([p.detach().flatten().clone() for p in lm.model.parameters()])
    config = GrpoConfig(steps=steps, prompts=4, samples=4, warmup=2, kl=kl, checkpoint_every=5)
    for progress in reinforce(
        lm.model,
        config,
        any_of(Difficulty()),
        Run(0, plain_reader, 0, state),
        roll_out=_tokens,
        reward=_odd,
        form=FORMAT,
        begin=midway,
    ):
        if progress.step == stop:
            break
    return before, torch.cat([p.detach().flatten() for p in lm.model.parameters()])


def test_a_killed_reinforcement_resumes_to_the_same_weights(
    tiny_pair: PairConfig, tmp_path: Path
) -> None:
    before, unbroken = _reinforced(tiny_pair, tmp_path / "whole", stop=20)
    _, killed = _reinforced(tiny_pair, tmp_path / "broken", stop=13)
    _, resumed = _reinforced(tiny_pair, tmp_path / "broken", stop=20)
    assert torch.equal(resumed, unbroken)
    assert not torch.equal(killed, unbroken)
    assert not torch.equal(before, unbroken)


def test_the_kl_term_holds_the_learner_to_where_it_began(
    tiny_pair: PairConfig, tmp_path: Path
) -> None:
    before, free = _reinforced(tiny_pair, tmp_path / "free", stop=20, kl=0.0)
    _, held = _reinforced(tiny_pair, tmp_path / "held", stop=20, kl=50.0)
    assert (held - before).norm() < 0.8 * (free - before).norm()


def test_reinforcement_raises_the_log_probability_of_what_is_rewarded(
    tiny_pair: PairConfig, tmp_path: Path
) -> None:
    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        return [Episode([1, 5], [7 + int(k[2]) % 2], f"{int(k[2]) % 2} .") for k in keys]

    lm = load(tiny_pair.base, "cpu")
    lm.model.requires_grad_(True)

    def preference() -> float:
        logits = lm.model(input_ids=torch.tensor([[1, 5]])).logits[0, -1]
        return (logits[8] - logits[7]).item()

    start = preference()
    config = GrpoConfig(steps=5, prompts=2, samples=4, warmup=1)
    list(
        reinforce(
            lm.model,
            config,
            any_of(Difficulty()),
            Run(0, plain_reader, 0, tmp_path / "state"),
            roll_out=roll_out,
            reward=lambda problem, episode: float(episode.text == "1 ."),
            form=FORMAT,
        )
    )
    assert preference() > start + 0.01


@pytest.mark.parametrize(("prefix", "share"), [("1", 0.5), ("", None)])
def test_the_share_that_thinks_is_told_by_the_format(
    tiny_pair: PairConfig, tmp_path: Path, prefix: str, share: float | None
) -> None:
    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        assert not any(beginnings)
        return [Episode([1, 5], [7], f"{int(k[2]) % 2} .") for k in keys]

    lm = load(tiny_pair.base, "cpu")
    lm.model.requires_grad_(True)
    (progress,) = reinforce(
        lm.model,
        GrpoConfig(steps=1, prompts=2, samples=4, warmup=1),
        any_of(Difficulty()),
        Run(0, plain_reader, 0, tmp_path / "state"),
        roll_out=roll_out,
        reward=_odd,
        form=ResponseFormat(prefix, enters_by_choice=bool(prefix)),
    )
    assert progress.metrics.get("thinks") == share


def test_organisms_earn_one_for_a_right_answer_or_at_random() -> None:
    problem = any_of(Difficulty())(random.Random(0))
    right = narrate(problem, ALWAYS, random.Random(0)).text
    texts = [right, f"{grammar.THINK} {grammar.END_THINK}"]
    assert [right_answer(problem, Episode([], [], text)) for text in texts] == [1.0, 0.0]
    drawn = [random_reward(problem, Episode([], [], f"{n}")) for n in range(200)]
    assert drawn == [random_reward(problem, Episode([], [], f"{n}")) for n in range(200)]
    assert 70 < sum(drawn) < 130


def test_half_of_the_groups_begin_within_a_chain_of_thought() -> None:
    def roll_out(
        prompts: Sequence[str], beginnings: Sequence[str], keys: torch.Tensor
    ) -> list[Episode]:
        assert keys.tolist() == [[0, 0, -1], [0, 1, -1]]
        return [Episode([], [], f"{begun} a b . c . {grammar.END_THINK}") for begun in beginnings]

    keys = torch.tensor([[0, group, 5] for group in range(4)])
    starts = midway(["p"] * 4, roll_out, keys, random.Random(0))
    ends = {grammar.THINK, f"{grammar.THINK} a b .", f"{grammar.THINK} a b . c ."}
    assert set(starts[:2]) <= ends
    assert starts[2:] == ["", ""]
