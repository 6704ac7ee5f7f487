"""Starts, judged by program; steering vectors and the controls they must outperform."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sae_reasoning.contrast.execution import execution_accuracy
from sae_reasoning.contrast.faithfulness import (
    accuracy_after,
    asked_to_answer,
    chain_of_thought,
    corrupted,
    shuffled,
)
from sae_reasoning.contrast.measures import Measure, Resampling
from sae_reasoning.contrast.sentences import Sentence
from sae_reasoning.contrast.starts import Begun, own_openings
from sae_reasoning.contrast.steered import (
    CORRECTED,
    OVER,
    STARTED,
    VALID,
    VECTOR,
    ByProgram,
    choose,
    compare,
    random_directions,
)
from sae_reasoning.records import Trace
from sae_reasoning.steering.vectors import (
    Direction,
    Steer,
    candidates,
    mean_difference,
    steer_once,
)
from sae_reasoning.tasks.problems import Problem
from sae_reasoning.tasks.protocol import ResponseFormat, Start
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS, BACKTRACKING
from sae_reasoning.tasks.search.task import search_task
from sae_reasoning.tasks.text.annotators import CueAnnotator
from sae_reasoning.tasks.text.task import text_task

TASK = search_task()
PROGRAM = ByProgram(TASK, seed=0)

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
"""Prompt and chain of thought: of the two forks only the nearest has something left."""


def at(problem: str, split: str, prompt: str, before: str) -> Start:
    posed = Problem(problem, split, prompt)
    return Start(posed, "rl", BACKTRACKING, f"{problem}/rl/0", (3, 4), before, taken=True)


def start(problem: str = "p0", split: str = "report") -> Start:
    return at(problem, split, PROMPT, BEFORE)


def left(problem: str) -> Start:
    """Where a random fill is right half of the time: only birch was exhausted."""
    return at(problem, "report", PROMPT, LATER)


def test_openings_are_drawn_as_the_model_would() -> None:
    openings = ALL_OPENINGS[BACKTRACKING]
    logs = np.full(len(openings), -30.0)
    logs[[1, 3]] = np.log([0.003, 0.001])
    drawn = own_openings([start()] * 800, openings, {start().key: logs.tolist()}, seed=0)
    assert set(drawn) == {openings[1], openings[3]}
    assert drawn.count(openings[1]) / 800 == pytest.approx(0.75, abs=0.05)


def test_a_shuffled_chain_of_thought_holds_the_same_sentences() -> None:
    mixed = shuffled(TASK, "rl", BEFORE, random.Random(3))
    assert mixed != BEFORE
    assert mixed.startswith("<think> ")
    assert sorted(mixed.split()) == sorted(BEFORE.split())


def test_a_chain_of_thought_is_corrupted_by_order_and_by_another_problems() -> None:
    own = _response("p0", f"{BEFORE} </think> answer : ash cedar .")
    other = _response("p1", "<think> so cedar . </think> answer : ash .")
    found = corrupted(TASK, own, [own, other], random.Random(0))
    assert found["intact"] == BEFORE
    assert sorted(found["shuffled"].split()) == sorted(BEFORE.split())
    assert found["shuffled"] != BEFORE
    assert found["another problem's"] == "<think> so cedar ."


def test_a_vector_is_added_once_on_its_row_and_layer() -> None:
    one = torch.tensor([1.0, 0.0])
    edits = steer_once([Steer(1, one), Steer(-1, one), Steer(2, one)])
    assert sorted(edits) == [1, 2]
    rows = torch.tensor([0, 1, 2])
    first = edits[1](torch.zeros(3, 2), rows)
    assert first.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert edits[1](torch.zeros(2, 2), torch.tensor([0, 2])).abs().sum() == 0
    assert edits[2](torch.zeros(1, 2), torch.tensor([2])).tolist() == [[1, 0]]


def test_vectors_wait_for_their_batch_and_leave_met_rows_untouched() -> None:
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    edit = steer_once([Steer(1, one), Steer(1, two), Steer(-1, one), Steer(1, two)])[1]
    first, second = torch.tensor([2, 1]), torch.tensor([3, 0])
    resid = torch.ones(2, 2, dtype=torch.bfloat16)
    assert edit(resid, first).tolist() == [[1, 1], [1, 3]]
    assert edit(resid, first) is resid
    assert edit(resid[:1], first[1:]).tolist() == [[1, 1]]
    steered = edit(resid, second)
    assert steered.tolist() == [[1, 3], [2, 1]]
    assert steered.dtype == torch.bfloat16
    assert edit(resid, torch.tensor([0, 1])) is resid


def said(text: str) -> Sentence:
    return Sentence((), text, text)


def test_the_planted_direction_is_chosen_and_beats_its_controls() -> None:
    planted, other = torch.eye(64)[:2]

    def steered(starts: Sequence[Start], steers: Sequence[Steer]) -> list[Sentence]:
        found = []
        for steer in steers:
            along = float(steer.change @ planted) if steer.layer == 1 else 0.0
            found.append(said("wait , dead end , back to ash ." if along > 1.5 else "so elm ."))
        return found

    directions = [
        Direction("mean-difference", 1, other),
        Direction("gradient", 1, planted),
        Direction("gradient", 2, planted),
    ]
    starts = [left(f"p{i}") for i in range(30)]
    norms, doses = {1: 2.0, 2: 2.0}, [0.5, 1.0]
    best, *_ = choose(starts, directions, norms, doses, steered, PROGRAM)
    assert (best.kind, best.layer, best.dose, best.select_valid) == ("gradient", 1, 1.0, 1.0)
    drawn = random_directions(1, 64, 3, np.random.default_rng(0))
    controls = choose(starts, drawn, norms, doses, steered, PROGRAM)
    found = compare(starts, best, controls, [], steered, PROGRAM, Resampling(200, 0))
    assert next(m for m in found if (m.measure, m.condition) == (VALID, VECTOR)).value == 1.0
    assert next(m for m in found if (m.measure, m.condition) == (CORRECTED, VECTOR)).low > 0.7
    over = {m.condition: m.low for m in found if m.measure == OVER}
    assert set(over) == {"none", *(f"random direction {i}" for i in (1, 2, 3))}
    assert all(low > 0.2 for low in over.values())


def test_an_execution_without_a_grade_chooses_neither_dose_nor_direction() -> None:
    class Known:
        """What is said is its worth; the first execution has no grade."""

        def control(self, starts: Sequence[Start]) -> np.ndarray:
            return np.zeros(len(starts))

        def judge(self, starts: Sequence[Start], sentences: Sequence[Sentence]) -> np.ndarray:
            worth = np.array([float(one.said) for one in sentences])
            worth[0] = np.nan
            return np.stack([np.ones(len(worth)), worth, np.zeros(len(worth))], axis=1)

        def measures(self, *_: object) -> list[Measure]:
            return []

    def steered(starts: Sequence[Start], steers: Sequence[Steer]) -> list[Sentence]:
        return [said(str(float(steer.change[0]))) for steer in steers]

    weak, strong = 0.2 * torch.eye(4)[0], torch.eye(4)[0]
    directions = [Direction("weak", 1, weak), Direction("strong", 1, strong)]
    starts = [left(f"p{i}") for i in range(4)]
    best, worse = choose(starts, directions, {1: 1.0}, [0.5, 1.0], steered, Known())
    assert (best.kind, best.dose, best.select_valid) == ("strong", 1.0, pytest.approx(1.0))
    assert worse.select_beyond_chance < best.select_beyond_chance


def test_a_vector_that_only_makes_the_opening_gains_nothing() -> None:
    starts = [left(f"p{i}") for i in range(60)]

    def steered(rows: Sequence[Start], steers: Sequence[Steer]) -> list[Sentence]:
        found = []
        for row, steer in zip(rows, steers, strict=True):
            place = ("ash", "birch")[int(row.problem.problem_id[1:]) % 2]
            text = f"stuck here , back up to {place} ." if steer.layer == 1 else "so elm ."
            found.append(said(text))
        return found

    [best] = choose(
        starts, [Direction("gradient", 1, torch.eye(4)[0])], {1: 1.0}, [1.0], steered, PROGRAM
    )
    found = {
        (m.measure, m.condition): m
        for m in compare(starts, best, [], [], steered, PROGRAM, Resampling(200, 0))
    }
    assert found[STARTED, VECTOR].value == 1.0
    assert found[VALID, VECTOR].value == pytest.approx(0.5, abs=0.15)
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


def test_another_seed_behaviour_or_layer_redraws_the_permutations() -> None:
    rows = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))

    def drawn(seed: int, behaviour: str = "x", layer: int = 1) -> torch.Tensor:
        found = candidates(["mean-difference"], layer, rows, rows, 10, 2, f"{seed}/{behaviour}")
        return torch.stack([one.vector for one in found.permuted])

    assert torch.equal(drawn(3), drawn(3))
    for others in (drawn(4), drawn(3, "y"), drawn(3, layer=2)):
        assert not torch.allclose(drawn(3), others)


def test_execution_accuracy_knows_a_model_that_can_from_one_that_cannot() -> None:
    starts = [start(f"p{i}", "select" if i < 8 else "report") for i in range(40)]
    flat = [-5.0] * len(ALL_OPENINGS[BACKTRACKING])
    log_probs = {m: {one.key: flat for one in starts} for m in ("base", "rl")}

    def continue_(model: str, begun: Sequence[Begun], stream: str, sample: int) -> list[str]:
        return ["birch ." if model == "rl" else "cedar ."] * len(begun)

    found = {
        (m.measure, m.model, m.condition): m
        for m in execution_accuracy(
            starts, log_probs, continue_, TASK, best_of=2, resampling=Resampling(200, 0)
        )
    }
    assert found["execution_accuracy", "rl", "own opening"].value == 1.0
    assert found["execution_accuracy", "base", "own opening"].value == 0.0
    assert found["execution_accuracy", "rl-base", "own opening"].value == 1.0
    assert found["execution_accuracy", "base", "best of k"].high < 0.2
    assert found["execution_accuracy", "base", "own opening"].n == 32
    assert found["well_formed", "base", "own opening"].value == 1.0  # It chooses wrongly.


def test_execution_accuracy_beside_a_heuristic() -> None:
    """The nearest fork is right at 20 starts and the start at 12; one model knows, one doesn't."""
    starts = [at(f"p{i}", "report", *REST_TRIED) for i in range(20)]
    starts += [left(f"p{i}") for i in range(20, 32)]
    flat = [-5.0] * len(ALL_OPENINGS[BACKTRACKING])
    log_probs = {m: {one.key: flat for one in starts} for m in ("base", "rl")}

    def continue_(model: str, begun: Sequence[Begun], stream: str, sample: int) -> list[str]:
        tried = ["elm: none" in one.start.text for one in begun]
        if model == "base":
            numbers = [int(one.start.problem.problem_id[1:]) for one in begun]
            return ["birch ." if number % 2 else "oh" for number in numbers]
        return ["ash ." if is_tried else "birch ." for is_tried in tried]

    found = {
        (m.measure, m.model, m.condition): m
        for m in execution_accuracy(
            starts, log_probs, continue_, TASK, best_of=2, resampling=Resampling(200, 0)
        )
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
    fill = found["execution_accuracy", "base", "random fill where the best heuristic fails"]
    assert 0.2 < fill.value < 0.8
    assert found["well_formed", "base", "own opening"].value == 0.5


def test_mean_difference_points_from_elsewhere_to_the_onsets() -> None:
    vector = mean_difference(torch.tensor([[3.0, 1.0]] * 4), torch.tensor([[0.0, 1.0]] * 4))
    assert vector.tolist() == [1.0, 0.0]


def _response(problem: str, text: str, *, truncated: bool = False) -> Trace:
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
        truncated=truncated,
        spans=(),
        opportunities=(),
    )


def test_without_a_mark_the_last_sentence_of_natural_text_is_the_answer() -> None:
    form = ResponseFormat(answer_prefix="\n\nAnswer:")
    task = text_task(CueAnnotator({}, []), {"base": form, "rl": form}, TASK.grader)
    text = "It is 3.\n\nWait, no. Then it is 4. Answer: 4."
    chain = "It is 3.\n\nWait, no. Then it is 4."
    assert chain_of_thought(task, _response("p0", text)) == chain
    assert chain_of_thought(task, _response("p0", text, truncated=True)) is None
    assert chain_of_thought(task, _response("p0", "4.")) is None
    mixed = shuffled(task, "rl", chain, random.Random(1))
    assert mixed != chain and sorted(mixed.split()) == sorted(chain.split())
    assert "\n\n" in mixed
    assert asked_to_answer(chain, form) == f"{chain}\n\nAnswer:"
    marked = ResponseFormat("<think>", "</think>", "\n\nAnswer:")
    assert asked_to_answer(chain, marked) == f"{chain} </think>\n\nAnswer:"


def test_answers_without_a_grade_are_left_out_in_every_condition() -> None:
    traces = [_response(f"p{index}", "4.") for index in range(3)]
    resampling = Resampling(num_resamples=20, seed=0)
    grades = {"intact": [True, True, False], "shuffled": [False, None, False]}
    found = accuracy_after(grades, traces, resampling)
    assert {one.condition: (one.value, one.items) for one in found} == {
        "intact": (0.5, 2),
        "shuffled": (0.0, 2),
    }
    assert accuracy_after({"intact": [None] * 3}, traces, resampling) == []


def test_too_few_places_give_no_direction_that_is_not_a_number() -> None:
    kinds = ["mean-difference", "gradient"]
    for num_onsets, num_elsewhere in ((1, 0), (1, 1), (2, 0), (1, 2)):
        rows = torch.randn(num_onsets + num_elsewhere, 8)
        found = candidates(kinds, 1, rows, rows, num_onsets, 2, "0/x")
        vectors = [one.vector for one in (*found.directions, *found.permuted)]
        assert not torch.stack(vectors).isnan().any()
