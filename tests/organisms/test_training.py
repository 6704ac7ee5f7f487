"""What organisms are trained on and by: the corpus, the start of embeddings, GRPO's terms."""

import random
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.organisms import grammar
from sae_reasoning.organisms.corpus import CorpusConfig, Share, reading
from sae_reasoning.organisms.grpo import group_advantages, kl_estimates
from sae_reasoning.organisms.pretrain import start_alike
from sae_reasoning.organisms.world import Difficulty, entry, sample_problem


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


def test_in_the_corpus_as_it_ends_few_think() -> None:
    assert CorpusConfig().thinking.at(1.0) <= 0.2


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
