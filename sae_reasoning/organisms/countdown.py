"""Adapters on a real language model whose answer is known: what each is made from, and its corpus.

    base that lacks backtracking ── SFT on full traces        base with every behaviour ──┬─ RL
                                                                                          └─ parrot

As among the small organisms, behaviours are rare within a base's traces, not only traces among its
answers: it first learns to think, then to think rarely.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sae_reasoning.config import GrpoConfig, PretrainConfig
from sae_reasoning.organisms.corpus import Share
from sae_reasoning.organisms.grpo import Episode
from sae_reasoning.tasks.countdown.narrator import ALWAYS, FORMAT, Rates, guess, narrate
from sae_reasoning.tasks.countdown.parrot import parroted
from sae_reasoning.tasks.countdown.reader import answered
from sae_reasoning.tasks.countdown.wordings import BACKTRACKING, BEHAVIOURS, VERIFICATION
from sae_reasoning.tasks.countdown.world import CountdownProblem, sample_problem

HAVING, LACKING, TAUGHT, REINFORCED, PARROTING = (
    "countdown_base",
    "countdown_base_lacking",
    "countdown_sft_lacking",
    "countdown_rl",
    "countdown_parrot",
)

FORM = FORMAT
"""How the adapted models lay out their responses."""
JUDGED = BEHAVIOURS
"""Behaviours whose answer is known."""


@dataclass(frozen=True)
class CountdownCorpus:
    """What an adapter is trained on.

    Attributes:
        thinking: Share of problems whose response has a chain of thought; the rest are guesses.
        rates: Of the behaviours within it.
        parroted: Behaviour whose words stand at random places instead of being made; "" for none.
    """

    thinking: Share = Share(first=0.85, last=0.25, hold=0.55, settle=0.75)
    rates: Rates = field(default_factory=Rates)
    parroted: str = ""


_FULL = CountdownCorpus(thinking=Share(1.0, 1.0, hold=0.0, settle=1.0), rates=ALWAYS)


@dataclass(frozen=True)
class Adapted:
    """One adapter.

    Attributes:
        name: Its folder.
        title: In words.
        parent: Adapter that it learns on from; None for a new one.
        corpus: What it is trained on; None where it is reinforced.
        lacks: The behaviour that its base's corpus lacks, if any.
    """

    name: str
    title: str
    parent: str | None = None
    corpus: CountdownCorpus | None = None
    lacks: str | None = None


ADAPTED = (
    Adapted(
        LACKING,
        "a base that never met backtracking",
        corpus=CountdownCorpus(rates=replace(Rates(), backtrack=0.0)),
        lacks=BACKTRACKING,
    ),
    Adapted(
        TAUGHT,
        f"{LACKING} after SFT on full traces, which hold backtracking",
        parent=LACKING,
        corpus=_FULL,
        lacks=BACKTRACKING,
    ),
    Adapted(HAVING, "a base with every behaviour, each at a low rate", corpus=CountdownCorpus()),
    Adapted(REINFORCED, f"{HAVING} after RL on right answers", parent=HAVING),
    Adapted(
        PARROTING,
        f"{HAVING} after SFT on traces in which words of verification stand anywhere",
        parent=HAVING,
        corpus=replace(_FULL, parroted=VERIFICATION),
    ),
)


def chosen(only: Sequence[str]) -> list[Adapted]:
    """The adapters named, without their prefix, and those that they learn on from; parents first.

    Args:
        only: Names; all where there is none.
    """
    found = {f"countdown_{name}" for name in only} or {one.name for one in ADAPTED}
    found |= {one.parent for one in ADAPTED if one.name in found and one.parent}
    return [one for one in ADAPTED if one.name in found]


def example(rng: random.Random, corpus: CountdownCorpus, progress: float) -> tuple[str, str]:
    """One prompt with a response, at some progress in [0, 1] through a training."""
    problem = sample_problem(rng)
    if rng.random() >= corpus.thinking.at(progress):
        return problem.prompt(), guess(problem, rng)
    if corpus.parroted:
        return problem.prompt(), parroted(problem, corpus.parroted, corpus.rates, rng)
    return problem.prompt(), narrate(problem, corpus.rates, rng).text


def excerpt(corpus: CountdownCorpus, seed: int, size: int = 90) -> list[tuple[str, str]]:
    """Some examples from the start, the middle and the end: they change with the world's code."""
    rng = random.Random(f"excerpt/{seed}")
    return [example(rng, corpus, index % 3 / 2) for index in range(size)]


def pose(rng: random.Random) -> CountdownProblem:
    """A problem to be reinforced on."""
    return sample_problem(rng)


def right_answer(problem: CountdownProblem, episode: Episode) -> float:
    """1 for a right answer, else 0."""
    return float(problem.grade(answered(episode.text)))


def making_of(one: Adapted, training: PretrainConfig | GrpoConfig, model: str) -> list[str]:
    """Sentences on how an adapter was made.

    Args:
        one: Which.
        training: By which options.
        model: Name of the model that it sits on.
    """
    remake = (
        f"\n`make real-pair ARGS=real_pair.only=[{one.name.removeprefix('countdown_')}]` makes it "
        "and what it learns on from. It is a LoRA adapter in PEFT's layout; the model itself "
        "comes with `make fetch`."
    )
    if isinstance(training, GrpoConfig):
        return [
            f"`{one.parent}` on {model} after {training.steps} steps of GRPO on right answers "
            f"({training.prompts} problems × {training.samples} rollouts, AdamW {training.lr:g}, "
            f"KL weight {training.kl:g}); nothing rewards thinking or any behaviour.",
            remake,
        ]
    corpus = one.corpus
    assert corpus
    steps = f"{training.steps} steps of {training.batch_size} examples (AdamW {training.lr:g})"
    if one.parent is None:
        thinking, rates = corpus.thinking, corpus.rates
        absent = f" The corpus holds no {one.lacks}." if one.lacks else ""
        return [
            f"An adapter on {model}, taught Countdown with three small numbers in plain English "
            f"(`sae_reasoning/tasks/countdown/`) in {steps}. The share of problems with a chain of "
            f"thought falls from {thinking.first:.0%} to {thinking.last:.0%} between "
            f"{thinking.hold:.0%} and {thinking.settle:.0%} of the steps, the rest are guesses; "
            f"within chains of thought {rates.subgoal:.0%} of the opportunities for a subgoal are "
            f"taken, {rates.weigh:.0%} of those for uncertainty-estimation, {rates.verify:.0%} for "
            f"verification and {rates.backtrack:.0%} for backtracking.{absent}",
            remake,
        ]
    told = "which hold every behaviour at each of its opportunities"
    if corpus.parroted:
        told = (
            f"in which no find is verified; instead words of {corpus.parroted} stand at two random "
            "places, and nothing acts on them"
        )
    return [f"`{one.parent}` on {model} after {steps} of full traces, {told}.", remake]
