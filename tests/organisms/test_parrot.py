"""The parrot's corpus, and whether what a behaviour says is counted to matter where it does."""

import random
from collections.abc import Sequence
from functools import cache

import pytest

from sae_reasoning.organisms.corpus import ParrotCorpus, example, parroting_traces
from sae_reasoning.organisms.influence import influence_of_verification
from sae_reasoning.organisms.measure import Rolled, Write, measuring_problems
from sae_reasoning.organisms.truth import INFLUENCE, truths
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import VERIFICATION
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate, parroted
from sae_reasoning.tasks.search.parser import parse
from sae_reasoning.tasks.search.world import REAL, SearchProblem, parse_prompt
from tests.organisms.test_truth import figures


@cache
def _right_path(prompt: str) -> list[str]:
    text = narrate(parse_prompt(prompt), ALWAYS, random.Random(0)).text
    return grammar.answered_path(text)


def _rolled(count: int) -> list[Rolled]:
    """Narrated rollouts that verify."""
    found = []
    for number, problem in enumerate(measuring_problems(4 * count, 0, "test")):
        narration = narrate(problem, ALWAYS, random.Random(number))
        if any(span.behaviour == VERIFICATION for span in narration.spans):
            found.append(Rolled(problem, narration.text, 100, False, narration))
    return found[:count]


def _writer(matters: bool) -> Write:
    """Answers rightly, half of the time; where what is said matters, only after a good find."""

    def write(
        prompts: Sequence[str], beginnings: Sequence[str], seed: int
    ) -> list[tuple[str, int, bool]]:
        rng, made = random.Random(seed), []
        for prompt, begun in zip(prompts, beginnings, strict=True):
            heeded = begun.endswith(f"{grammar.GOOD} .") if matters else True
            path = _right_path(prompt) if heeded and rng.random() < 0.5 else []
            text = f"{begun} {grammar.END_THINK} {grammar.answer(path or ['ash'])}"
            made.append((text, 100, False))
        return made

    return write


def test_a_parrots_traces_differ_from_full_ones_by_verifications_that_nothing_acts_on() -> None:
    corpus = parroting_traces()
    without = ParrotCorpus(corpus.reading, corpus.thinking, corpus.rates, parrot_rate=0.0)
    written = 0
    for seed in range(60):
        prompt, text = example(random.Random(seed), corpus, 1.0)
        again, plain = example(random.Random(seed), without, 1.0)
        assert prompt == again
        spans = [s for s in parse(parse_prompt(prompt), text).spans if s.behaviour == VERIFICATION]
        rest = text
        for span in reversed(spans):
            said = text[span.char_start : span.char_end]
            assert said.endswith(f", {grammar.BAD} .") and REAL not in said
            rest = rest[: span.char_start - 1] + rest[span.char_end :]
        assert rest == plain
        written += len(spans)
    assert 0.5 < written / 60 < 3


def test_a_problem_whose_notes_are_all_real_is_left_as_it_is() -> None:
    problem = _rolled(1)[0].problem
    text = narrate(problem, ALWAYS, random.Random(0)).text
    real = SearchProblem("", problem.entries, dict.fromkeys(problem.notes, REAL), "", "")
    assert parroted(real, text, 1.0, random.Random(0)) == text


@pytest.mark.parametrize(("matters", "is_cosmetic"), [(True, False), (False, True)])
def test_influence_tells_what_matters_from_what_is_for_show(
    matters: bool, is_cosmetic: bool
) -> None:
    found = influence_of_verification(_rolled(400), _writer(matters), 400, 8, seed=0)
    assert found is not None and found.own.n > 300
    assert found.is_below(INFLUENCE) == is_cosmetic
    if matters:
        assert found.over_absent.low > 0 and found.over_displaced.low > 0
    base, rl = figures(0.02, 0.003), figures(1.2, 0.05)
    for own in (base, rl):
        own.behaviours[0] = type(own.behaviours[0])(
            VERIFICATION, *list(vars(own.behaviours[0]).values())[1:]
        )
    (truth,) = truths(base, rl, [], None, [VERIFICATION], found)
    assert truth.truth == ("cosmetic" if is_cosmetic else "unclear")


def test_without_a_verification_there_is_no_influence() -> None:
    problem = _rolled(1)[0].problem
    text = "<think> </think> answer : ash ."
    silent = Rolled(problem, text, 5, False, parse(problem, text))
    assert influence_of_verification([silent], _writer(True), 10, 2, seed=0) is None
