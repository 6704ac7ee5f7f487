"""The program's judgement of a behaviour whose start was written for the model."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.forced import (
    ForcedStart,
    _standing,
    forced_starts,
    is_valid,
    measure_validity,
)
from sae_reasoning.tasks.search.narrator import ALWAYS, narrate
from sae_reasoning.tasks.search.world import Difficulty, sample_problem

PROMPT = (
    "map ash: either birch or cedar , birch: none , cedar: elm , elm: gold ; "
    "notes birch# open cedar# open elm# fake ; from ash find gold ?"
)
AT_START = "<think> the task is gold from ash ."
AT_FORK = f"{AT_START} at ash: either birch or cedar ."
AT_DEAD_END = f"{AT_FORK} so birch . at birch: none ."
AT_FIND = f"{AT_FORK} so cedar . at cedar: elm . so elm . at elm: gold ."


def openings(behaviour: str) -> tuple[str, ...]:
    """The words that can begin a behaviour."""
    return grammar.OPENINGS[behaviour] + ((grammar.LOOK,) if behaviour == grammar.DEDUCTION else ())


@pytest.mark.parametrize(
    ("before", "behaviour", "continuation", "valid"),
    [
        (AT_DEAD_END, "backtracking", "ash .", True),
        (AT_DEAD_END, "backtracking", "birch .", False),
        (AT_DEAD_END, "backtracking", "ash birch", False),
        (AT_FORK, "uncertainty-estimation", "birch# open . so birch .", True),
        (AT_FORK, "uncertainty-estimation", "birch# open cedar# open .", False),
        (AT_FORK, "uncertainty-estimation", "birch# shut cedar# open .", False),
        (AT_FORK, "uncertainty-estimation", "cedar# open .", False),
        (AT_FIND, "verification", "elm# fake , bad .", True),
        (AT_FIND, "verification", "elm# fake , good .", False),
        (AT_FIND, "verification", "elm# real , good .", False),
        (AT_FORK, "deduction", "cedar . at cedar: elm .", True),
        (AT_FORK, "deduction", "elm . at elm: gold .", False),
        ("<think>", "initializing", "gold from ash .", True),
        ("<think>", "initializing", "salt from ash .", False),
    ],
)
def test_the_program_judges_what_follows_the_opening(
    before: str, behaviour: str, continuation: str, valid: bool
) -> None:
    for opening in grammar.OPENINGS[behaviour]:
        assert is_valid(ForcedStart(PROMPT, before, opening, behaviour), continuation) is valid


@pytest.mark.parametrize(
    ("continuation", "valid"),
    [
        ("ash: either birch or cedar . so birch .", True),
        ("ash: either birch or elm .", False),
        ("birch: none .", False),
    ],
)
def test_before_a_place_is_read_the_step_is_to_read_it(continuation: str, valid: bool) -> None:
    start = ForcedStart(PROMPT, AT_START, grammar.LOOK, "deduction")
    assert is_valid(start, continuation) is valid


def test_off_the_map_no_step_is_valid() -> None:
    before = f"{AT_DEAD_END} wait , dead end , back to oak ."
    start = ForcedStart(PROMPT, before, grammar.LOOK, "deduction")
    assert not is_valid(start, "oak: elm .")
    assert not is_valid(start, "ash: either birch or cedar .")


def test_nobody_behaviours_a_walk_that_many_read() -> None:
    problem, walk = _standing(PROMPT, AT_FORK)
    before = walk.path, walk.untried("ash"), walk.opportunities()
    for moves_on in (
        lambda: walk.look("birch"),
        lambda: walk.choose("cedar"),
        lambda: walk.weigh([("birch", "shut")]),
        lambda: walk.backtrack("ash"),
        lambda: walk.verify(True),
    ):
        with pytest.raises(AttributeError, match="others read too"):
            moves_on()
    with pytest.raises(AttributeError):
        walk.path.append("cedar")
    with pytest.raises(TypeError):
        problem.entries["birch"] = ("gold",)
    assert _standing(PROMPT, AT_FORK)[1] is walk
    assert (walk.path, walk.untried("ash"), walk.opportunities()) == before


@given(st.integers(0, 10_000))
def test_the_narrators_own_behaviours_are_valid(seed: int) -> None:
    problem = sample_problem(random.Random(seed), Difficulty(), grammar.REMARKS)
    narration = narrate(problem, ALWAYS, random.Random(seed))
    for span in narration.spans:
        said = narration.text[span.char_start :]
        opening = next(o for o in openings(span.behaviour) if said.startswith(f"{o} "))
        before = narration.text[: span.char_start - 1]
        start = ForcedStart(problem.prompt(), before, opening, span.behaviour)
        assert is_valid(start, said.removeprefix(opening).strip())


def test_an_oracle_is_always_valid_and_chance_is_not() -> None:
    problems = [sample_problem(random.Random(s), Difficulty()) for s in range(120)]
    narrations = [narrate(p, ALWAYS, random.Random(i)) for i, p in enumerate(problems)]
    by_prompt = {p.prompt(): n.text for p, n in zip(problems, narrations, strict=True)}
    starts = forced_starts(
        [(p.prompt(), n.text) for p, n in zip(problems, narrations, strict=True)],
        [[(o.behaviour, o.char_end) for o in n.opportunities if o.taken] for n in narrations],
        random.Random(0),
        per_behaviour=50,
    )

    def oracle(prompts: list[str], beginnings: list[str], keys: range) -> list[str]:
        """What the narrator wrote there; its wording may differ from the forced one."""
        texts = []
        for start, prompt in zip(starts, prompts, strict=True):
            said = by_prompt[prompt][len(start.before) :].strip()
            opening = next(o for o in openings(start.behaviour) if said.startswith(f"{o} "))
            texts.append(said.removeprefix(opening).strip())
        return texts

    for validity in measure_validity(starts, oracle, seed=0):
        assert validity.valid == validity.n > 20
        assert validity.chance < 0.7
        assert validity.heuristic < 1
