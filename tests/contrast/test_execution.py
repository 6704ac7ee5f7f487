"""Starts, judged by program; pushes and the controls they must beat."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sae_reasoning.contrast.execution import (
    Begun,
    Start,
    best_fixed_rule,
    chances,
    content_words,
    corrupted,
    judge,
    judge_free,
    own_openings,
    shuffled,
    validity,
)
from sae_reasoning.contrast.measures import Resampling
from sae_reasoning.contrast.steered import (
    CORRECTED,
    OVER,
    STARTED,
    STEERED,
    VALID,
    choose,
    compare,
    random_directions,
)
from sae_reasoning.records import Trace
from sae_reasoning.stats import pass_at
from sae_reasoning.steering.vectors import (
    Direction,
    Steer,
    candidates,
    mean_difference,
    steer_once,
)
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS, BACKTRACKING

PROMPT = (
    "map ash: either birch or cedar , birch: either dale or elm , dale: none , elm: none , "
    "cedar: gold ; notes birch# open cedar# open dale# open elm# open ; from ash find gold ?"
)
BEFORE = (
    "<think> the task is gold from ash . at ash: either birch or cedar . so birch . "
    "at birch: either dale or elm . so dale . at dale: none ."
)
LATER = (
    f"{BEFORE} stuck here , back up to birch . at birch: either dale or elm . "
    "so elm . at elm: none ."
)


REST_TRIED = (
    PROMPT.replace("cedar: gold", "cedar: none").replace("elm: none", "elm: gold"),
    "<think> the task is gold from ash . at ash: either birch or cedar . so cedar . "
    "at cedar: none . stuck here , back up to ash . at ash: either birch or cedar . so birch . "
    "at birch: either dale or elm . so dale . at dale: none .",
)
"""Prompt and thought: of the two forks only the nearest has something left."""


def start(problem: str = "p0", split: str = "report", place: int = 0) -> Start:
    return Start(problem, split, BACKTRACKING, PROMPT, BEFORE, place, (1, 2, 3), (3,))


def left(problem: str, place: int) -> Start:
    """Where lots are right half of the time: only birch was exhausted."""
    return Start(problem, "report", BACKTRACKING, PROMPT, LATER, place, (1, 2), (2,))


def test_the_program_judges_a_start_and_what_is_said_freely() -> None:
    assert judge(start(), "stuck here , back up to", "birch . at birch: either dale or elm .")
    assert judge(start(), "stuck here , back up to", "ash .")
    assert not judge(start(), "stuck here , back up to", "cedar .")
    assert judge_free(start(), "that fails , rewind to birch .") == (True, True)
    assert judge_free(start(), "that fails , rewind to dale .") == (True, False)
    assert judge_free(start(), "so elm .") == (False, False)


def test_chance_is_what_places_on_the_path_earn() -> None:
    # By lot: ash or birch, both with something left to try.
    assert chances([start()], 1, 0)[0] == 1.0
    assert best_fixed_rule([start()], []) == pytest.approx([1.0])
    left = Start(
        "p0",
        "report",
        BACKTRACKING,
        PROMPT,
        LATER,
        0,
        (1,),
        (),
    )
    one, two = (chances([left] * 40, tries, 0).mean() for tries in (1, 2))
    assert one == pytest.approx(0.5, abs=0.15)
    assert two > one


def test_the_chance_of_the_best_of_several_is_the_unbiased_pass_at_k() -> None:
    """Of the same 16 lots: without replacement, not by the power of their share."""
    starts = [left(f"p{i}", i) for i in range(12)]
    one, two = chances(starts, 1, 0), chances(starts, 2, 0)
    assert 0 < one.mean() < 1
    assert two == pytest.approx([pass_at(round(16 * p), 16, 2) for p in one])
    assert two.mean() > (1 - (1 - one) ** 2).mean()
    assert chances(starts, 20, 0) == pytest.approx(1.0)  # More tries than 16 draw more lots.


def test_the_fixed_rule_is_the_one_that_does_best_on_other_starts() -> None:
    """The nearest fork is right where the rest was tried, the start alone where birch was."""
    near = [Start(f"s{i}", "select", BACKTRACKING, *REST_TRIED, i, (1, 2), ()) for i in range(3)]
    far = [left(f"p{i}", i) for i in (7, 8)]
    assert best_fixed_rule(far, near) == pytest.approx([0.0, 0.0])
    assert best_fixed_rule(far, []) == pytest.approx([1.0, 1.0])


def test_openings_are_drawn_as_the_model_would() -> None:
    openings = ALL_OPENINGS[BACKTRACKING]
    logs = np.full(len(openings), -30.0)
    logs[[1, 3]] = np.log([0.003, 0.001])
    drawn = own_openings([start(place=0)] * 800, [logs.tolist()], seed=0)
    assert set(drawn) == {openings[1], openings[3]}
    assert drawn.count(openings[1]) / 800 == pytest.approx(0.75, abs=0.05)


def test_a_shuffled_thought_holds_the_same_sentences() -> None:
    mixed = shuffled(BEFORE, random.Random(3))
    assert mixed != BEFORE
    assert mixed.startswith("<think> ")
    assert sorted(mixed.split()) == sorted(BEFORE.split())


def test_a_thought_is_corrupted_by_order_and_by_another_problems() -> None:
    def trace(problem: str, text: str) -> Trace:
        return Trace(
            trace_id=problem,
            problem_id=problem,
            split="report",
            writer="rl",
            model="rl",
            prompt=PROMPT,
            text=text,
            token_ids=(1, 2),
            num_prompt_tokens=1,
            correct=True,
            truncated=False,
            spans=(),
            opportunities=(),
        )

    own = trace("p0", f"{BEFORE} </think> answer : ash cedar .")
    other = trace("p1", "<think> so cedar . </think> answer : ash .")
    found = corrupted(own, [own, other], random.Random(0))
    assert found["intact"] == BEFORE
    assert sorted(found["shuffled"].split()) == sorted(BEFORE.split())
    assert found["shuffled"] != BEFORE
    assert found["another problem's"] == "<think> so cedar ."


def test_content_is_names_and_notes_not_the_words_around_them() -> None:
    text = "so ash . back to birch# open ."
    assert [text[a:b] for a, b in content_words((0, len(text)), text)] == ["ash", "birch#", "open"]


def test_a_push_acts_once_on_its_row_and_layer() -> None:
    one = torch.tensor([1.0, 0.0])
    edits = steer_once([Steer(1, one), Steer(-1, one), Steer(2, one)])
    assert sorted(edits) == [1, 2]
    rows = torch.tensor([0, 1, 2])
    first = edits[1](torch.zeros(3, 2), rows)
    assert first.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert edits[1](torch.zeros(2, 2), torch.tensor([0, 2])).abs().sum() == 0
    assert edits[2](torch.zeros(1, 2), torch.tensor([2])).tolist() == [[1, 0]]


def test_pushes_wait_for_their_batch_and_leave_met_rows_untouched() -> None:
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    edit = steer_once([Steer(1, one), Steer(1, two), Steer(-1, one), Steer(1, two)])[1]
    first, second = torch.tensor([2, 1]), torch.tensor([3, 0])
    resid = torch.ones(2, 2, dtype=torch.bfloat16)
    assert edit(resid, first).tolist() == [[1, 1], [1, 3]]
    assert edit(resid, first) is resid
    assert edit(resid[:1], first[1:]).tolist() == [[1, 1]]
    pushed = edit(resid, second)
    assert pushed.tolist() == [[1, 3], [2, 1]]
    assert pushed.dtype == torch.bfloat16
    assert edit(resid, torch.tensor([0, 1])) is resid


def test_the_planted_direction_is_chosen_and_beats_its_controls() -> None:
    planted, other = torch.eye(64)[:2]

    def pushed(starts: Sequence[Start], pushes: Sequence[Steer]) -> list[str]:
        said = []
        for push in pushes:
            along = float(push.change @ planted) if push.layer == 1 else 0.0
            said.append("wait , dead end , back to ash ." if along > 1.5 else "so elm .")
        return said

    directions = [
        Direction("mean-difference", 1, other),
        Direction("gradient", 1, planted),
        Direction("gradient", 2, planted),
    ]
    starts = [left(f"p{i}", place=i) for i in range(30)]
    norms, doses = {1: 2.0, 2: 2.0}, [0.5, 1.0]
    best, *_ = choose(starts, directions, norms, doses, pushed, seed=0)
    assert (best.kind, best.layer, best.dose, best.select_valid) == ("gradient", 1, 1.0, 1.0)
    by_lot = random_directions(1, 64, 3, np.random.default_rng(0))
    controls = choose(starts, by_lot, norms, doses, pushed, seed=0)
    found = compare(starts, best, controls, [], pushed, Resampling(200, 0))
    assert next(m for m in found if (m.measure, m.condition) == (VALID, STEERED)).value == 1.0
    assert next(m for m in found if (m.measure, m.condition) == (CORRECTED, STEERED)).low > 0.7
    over = {m.condition: m.low for m in found if m.measure == OVER}
    assert set(over) == {"none", *(f"random direction {i}" for i in (1, 2, 3))}
    assert all(low > 0.2 for low in over.values())


def test_a_push_that_only_writes_the_opening_gains_nothing() -> None:
    starts = [left(f"p{i}", place=i) for i in range(60)]

    def pushed(rows: Sequence[Start], pushes: Sequence[Steer]) -> list[str]:
        said = []
        for row, push in zip(rows, pushes, strict=True):
            place = ("ash", "birch")[row.place % 2]
            said.append(f"stuck here , back up to {place} ." if push.layer == 1 else "so elm .")
        return said

    [best] = choose(
        starts, [Direction("gradient", 1, torch.eye(4)[0])], {1: 1.0}, [1.0], pushed, seed=0
    )
    found = {
        (m.measure, m.condition): m
        for m in compare(starts, best, [], [], pushed, Resampling(200, 0))
    }
    assert found[STARTED, STEERED].value == 1.0
    assert found[VALID, STEERED].value == pytest.approx(0.5, abs=0.15)
    assert found[OVER, "none"].low < 0 < found[OVER, "none"].high


def test_permuted_labels_give_a_direction_that_is_not_the_true_one() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(60, 32, generator=generator)
    noise[:30] += 3 * torch.eye(32)[0]
    found = candidates(["mean-difference"], 1, noise, noise, 30, 20, "0/x")
    true = found.directions[0].vector
    assert float(true[0]) > 0.9
    assert max(abs(float(one.vector @ true)) for one in found.permuted) < 0.6
    assert found.norm > 3


def test_another_seed_move_or_layer_redraws_the_permutations() -> None:
    rows = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))

    def drawn(seed: int, move: str = "x", layer: int = 1) -> torch.Tensor:
        found = candidates(["mean-difference"], layer, rows, rows, 10, 2, f"{seed}/{move}")
        return torch.stack([one.vector for one in found.permuted])

    assert torch.equal(drawn(3), drawn(3))
    for others in (drawn(4), drawn(3, "y"), drawn(3, layer=2)):
        assert not torch.allclose(drawn(3), others)


def test_validity_knows_a_model_that_can_from_one_that_cannot() -> None:
    starts = [start(f"p{i}", "select" if i < 8 else "report", i) for i in range(40)]
    log_probs = {m: [[-5.0] * len(ALL_OPENINGS[BACKTRACKING])] * 40 for m in ("base", "rl")}

    def continue_(
        model: str, prompts: Sequence[str], begun: Sequence[Begun], keys: Sequence[tuple[int, int]]
    ) -> list[str]:
        return ["birch ." if model == "rl" else "cedar ."] * len(prompts)

    found = {
        (m.measure, m.model, m.condition): m
        for m in validity(starts, log_probs, continue_, tries=2, how=Resampling(200, 0))
    }
    assert found["execution_accuracy", "rl", "own opening"].value == 1.0
    assert found["execution_accuracy", "base", "own opening"].value == 0.0
    assert found["execution_accuracy", "rl-base", "own opening"].value == 1.0
    assert found["execution_accuracy", "base", "best of k"].high < 0.2
    assert found["execution_accuracy", "base", "own opening"].n == 32
    assert found["well_formed", "base", "own opening"].value == 1.0  # It chooses wrongly.


def test_validity_beside_a_rule_that_reads_nothing() -> None:
    """The nearest fork is right at 20 starts and the start at 12; one model knows, one doesn't."""
    starts = [Start(f"p{i}", "report", BACKTRACKING, *REST_TRIED, i, (1, 2), ()) for i in range(20)]
    starts += [left(f"p{i}", i) for i in range(20, 32)]
    log_probs = {m: [[-5.0] * len(ALL_OPENINGS[BACKTRACKING])] * 32 for m in ("base", "rl")}

    def continue_(
        model: str, prompts: Sequence[str], begun: Sequence[Begun], keys: Sequence[tuple[int, int]]
    ) -> list[str]:
        tried = ["elm: none" in one.before for one in begun]
        if model == "base":
            return ["birch ." if place % 2 else "oh" for place, _ in keys]
        return ["ash ." if is_tried else "birch ." for is_tried in tried]

    found = {
        (m.measure, m.model, m.condition): m
        for m in validity(starts, log_probs, continue_, tries=2, how=Resampling(200, 0))
    }
    over = {
        model: found["accuracy_over_heuristic", model, "best heuristic"] for model in ("base", "rl")
    }
    assert over["rl"].value == pytest.approx(12 / 32)
    assert over["rl"].low > 0.2
    assert over["base"].value == pytest.approx(-10 / 32)
    gap, level = (
        found["chance_corrected_accuracy", "rl-base", "own opening"],
        found["chance_corrected_accuracy", "rl", "own opening"],
    )
    assert gap.value == pytest.approx(
        level.value - found["chance_corrected_accuracy", "base", "own opening"].value
    )
    there = "own opening where the best heuristic fails"
    assert (
        found["execution_accuracy", "rl", there].value,
        found["execution_accuracy", "rl", there].n,
    ) == (1.0, 12)
    assert found["execution_accuracy", "base", there].value == 0.0
    lot = found["execution_accuracy", "base", "random fill where the best heuristic fails"]
    assert 0.2 < lot.value < 0.8
    assert found["well_formed", "base", "own opening"].value == 0.5


def test_mean_difference_points_from_elsewhere_to_the_onsets() -> None:
    vector = mean_difference(torch.tensor([[3.0, 1.0]] * 4), torch.tensor([[0.0, 1.0]] * 4))
    assert vector.tolist() == [1.0, 0.0]
