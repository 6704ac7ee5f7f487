"""What is heard while a response is written agrees with what is read in it afterwards."""

import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sae_reasoning.config import PairConfig
from sae_reasoning.edges.lm.load import encode_response
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import BACKTRACKING, DEDUCTION, UNCERTAINTY, VERIFICATION
from sae_reasoning.tasks.search.narrator import BehaviourRates, narrate
from sae_reasoning.tasks.search.parser import Listener, parse, read
from sae_reasoning.tasks.search.world import Difficulty, SearchProblem, sample_problem
from sae_reasoning.traces.align import align_opportunity

RATES = BehaviourRates(backtrack=0.6, weigh=0.6, verify=0.6)


def sample(seed: int) -> tuple[SearchProblem, str]:
    rng = random.Random(seed)
    problem = sample_problem(rng, Difficulty(), grammar.REMARKS)
    return problem, narrate(problem, RATES, rng).text


def spoilt(seed: int) -> tuple[SearchProblem, str]:
    """A response in which words are dropped, doubled or exchanged, as weak models do."""
    problem, text = sample(seed)
    rng, words = random.Random(seed), text.split()
    for _ in range(6):
        place = rng.randrange(1, len(words))
        words[place : place + 1] = rng.choice([[], [words[place]] * 2, [rng.choice(words[1:])]])
    return problem, " ".join(words)


def heard(
    problem: SearchProblem, text: str, tokenizer: PreTrainedTokenizerFast
) -> set[tuple[str, int]]:
    """Behaviours heard, with the token after which they could start."""
    token_ids, _ = encode_response(tokenizer, text)
    listener, unheard, found = Listener(problem), [], set()
    for place, token in enumerate(token_ids):
        unheard.append(token)
        behaviours = listener.starts_after(tokenizer.decode(unheard))
        if behaviours is not None:
            unheard.clear()
            found |= {(behaviour, place) for behaviour in behaviours}
    return found


def marked(
    problem: SearchProblem, text: str, tokenizer: PreTrainedTokenizerFast
) -> set[tuple[str, int]]:
    _, offsets = encode_response(tokenizer, text)
    narration = parse(problem, text)
    return {(o.behaviour, align_opportunity(o, offsets, 0).token) for o in narration.opportunities}


@pytest.mark.parametrize("make", [sample, spoilt])
@pytest.mark.parametrize("family", ["words", "byte pairs"])
def test_what_is_heard_is_what_is_marked_afterwards(
    make, family, tiny_pair: PairConfig, tiny_neox_pair: PairConfig
):
    pair = tiny_pair if family == "words" else tiny_neox_pair
    tokenizer = AutoTokenizer.from_pretrained(pair.rl.path)
    count = 0
    for seed in range(60):
        problem, text = make(seed)
        online, offline = heard(problem, text, tokenizer), marked(problem, text, tokenizer)
        # Whether a choice awaits its look shows only later; the other behaviours agree exactly.
        assert online <= offline, text
        assert {behaviour for behaviour, _ in offline - online} <= {DEDUCTION}, text
        count += len(online)
        if make is sample:
            assert online == offline, text
    assert count > 500


def test_an_opening_that_asks_is_no_sentence() -> None:
    problem, _ = sample(0)
    listener = Listener(problem)
    assert listener.starts_after("<think>") == {"initializing"}
    assert listener.starts_after(f"at {problem.start}") is None
    children = " or ".join(problem.entries[problem.start])
    assert UNCERTAINTY in (listener.starts_after(f"at {problem.start}: either {children} .") or ())
    assert listener.starts_after("is it right ?") is None
    assert listener.starts_after("is it right ? ash# real , good .") is not None


def test_who_does_not_think_is_offered_nothing() -> None:
    problem, _ = sample(0)
    listener = Listener(problem)
    assert listener.starts_after("answer : ash birch .") == frozenset()
    assert listener.starts_after("at ash: birch .") == frozenset()


PROBLEM = SearchProblem(
    remark="",
    entries={"ash": ("birch", "cedar"), "birch": ("none",), "cedar": ("gold",)},
    notes={"birch": "open", "cedar": "open", "cedar ": "real"},
    start="ash",
    goal="gold",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at ash: either birch or cedar .", [(DEDUCTION, True)]),
        ("at ash: either birch or dale .", [(DEDUCTION, False)]),
        ("at cedar: gold .", [(DEDUCTION, False)]),
        ("at ash: either birch or cedar . so birch . at birch: none .", [(DEDUCTION, True)] * 2),
        ("at ash: either birch or cedar . so dale .", [(DEDUCTION, True), (DEDUCTION, False)]),
        (
            "at ash: either birch or cedar . so birch . at birch: none . "
            "wait , dead end , back to ash .",
            [(DEDUCTION, True), (DEDUCTION, True), (BACKTRACKING, True)],
        ),
        (
            "at ash: either birch or cedar . so birch . at birch: none . "
            "wait , dead end , back to birch .",
            [(DEDUCTION, True), (DEDUCTION, True), (BACKTRACKING, False)],
        ),
        (
            "at ash: either birch or cedar . hmm , maybe birch# open .",
            [(DEDUCTION, True), (UNCERTAINTY, True)],
        ),
        (
            "at ash: either birch or cedar . hmm , maybe birch# shut .",
            [(DEDUCTION, True), (UNCERTAINTY, False)],
        ),
        ("let me check , ash# real , good .", [(VERIFICATION, False)]),
    ],
)
def test_each_behaviour_is_judged_by_the_map(text: str, expected: list[tuple[str, bool]]) -> None:
    reading = read(PROBLEM, f"<think> {text}")
    found = [span.behaviour for span in reading.narration.spans]
    assert list(zip(found, reading.is_right, strict=True)) == expected


def test_a_trace_that_makes_every_behaviour_has_them_all_right() -> None:
    for seed in range(20):
        problem, text = sample(seed)
        reading = read(problem, text)
        assert len(reading.is_right) == len(reading.narration.spans) > 2
        assert all(reading.is_right), text
