"""The grid of organisms: which models there are, what each is made of, and what its answer is.

    base of every move ──┬─ RL ──── prolonged RL       base that lacks one ──┬─ RL
                         ├─ SFT on full traces         move, by seed         └─ SFT on full traces
                         ├─ SFT in other words
                         └─ RL on a random reward

Bases are shared, so cells of one seed differ in tuning alone.
"""

from dataclasses import dataclass, replace

from sae_reasoning.organisms.corpus import CorpusConfig, full_traces
from sae_reasoning.tasks.search.grammar import BACKTRACKING, UNCERTAINTY, VERIFICATION
from sae_reasoning.tasks.search.narrator import MoveRates
from sae_reasoning.tasks.search.world import LONGER, Difficulty

PRETRAINED, TUNED, REINFORCED = "pretrained", "tuned", "reinforced"
JUDGED = (UNCERTAINTY, BACKTRACKING, VERIFICATION)
"""Moves that have an answer; the others fill every trace."""

_ROTATION = (BACKTRACKING, VERIFICATION)


@dataclass(frozen=True)
class Organism:
    """One model of the grid.

    Attributes:
        name: Its folder.
        title: What it is, for people.
        how: `pretrained`, `tuned` (SFT) or `reinforced` (GRPO).
        parent: Folder of the model it is made from; None for a base.
        corpus: What a pretrained or tuned one is trained on.
        difficulty: Of the problems on which one is reinforced.
        random_reward: Whether its reward says nothing of its answers.
        length: Steps, in multiples of the config's.
        lacks: The move that its base never met, if any.
    """

    name: str
    title: str
    how: str
    parent: str | None = None
    corpus: CorpusConfig | None = None
    difficulty: Difficulty | None = None
    random_reward: bool = False
    length: int = 1
    lacks: str | None = None


def absent_move(seed: int) -> str:
    """The move that one base of this seed never meets."""
    return _ROTATION[seed % len(_ROTATION)]


def rates_without(move: str) -> MoveRates:
    """The bases' rates, but for one move that is never made."""
    field = {BACKTRACKING: "backtrack", VERIFICATION: "verify"}[move]
    return replace(MoveRates(), **{field: 0.0})


def grid(family: str, seed: int) -> tuple[Organism, ...]:
    """Every model of a family and seed; parents come first."""
    lacks = absent_move(seed)

    def name(what: str) -> str:
        return f"search_{what}_{family}"

    base, lacking = name("base"), name("base_lacking")
    return (
        Organism(
            base,
            "a base that has every move and makes each rarely",
            PRETRAINED,
            corpus=CorpusConfig(),
        ),
        Organism(
            name("rl"),
            f"what reinforcement made of {base}",
            REINFORCED,
            parent=base,
            difficulty=Difficulty(),
        ),
        Organism(
            lacking,
            f"a base that never met {lacks}",
            PRETRAINED,
            corpus=CorpusConfig(rates=rates_without(lacks)),
            lacks=lacks,
        ),
        Organism(
            name("sft_lacking"),
            f"{lacking} tuned on full traces, which hold {lacks}",
            TUNED,
            parent=lacking,
            corpus=full_traces(),
            lacks=lacks,
        ),
        Organism(
            name("random"),
            f"{base} after as many steps of reinforcement on a random reward",
            REINFORCED,
            parent=base,
            difficulty=Difficulty(),
            random_reward=True,
        ),
        Organism(
            name("sft"),
            f"{base} tuned on full traces",
            TUNED,
            parent=base,
            corpus=full_traces(),
        ),
        Organism(
            name("reworded"),
            f"{base} tuned on full traces in other words",
            TUNED,
            parent=base,
            corpus=full_traces(reworded=True),
        ),
        Organism(
            name("rl_lacking"),
            f"what reinforcement made of {lacking}",
            REINFORCED,
            parent=lacking,
            difficulty=Difficulty(),
            lacks=lacks,
        ),
        Organism(
            name("prolonged"),
            f"{name('rl')} reinforced three times as long again, on longer paths",
            REINFORCED,
            parent=name("rl"),
            difficulty=LONGER,
            length=3,
        ),
    )


PAIRS = {
    "deployed": ("base", "rl"),
    "created": ("base_lacking", "sft_lacking"),
    "null": ("base", "random"),
    "deployed_sft": ("base", "sft"),
    "reworded": ("base", "reworded"),
    "lacking": ("base_lacking", "rl_lacking"),
    "prolonged": ("base", "prolonged"),
}
"""Base and second model of each registered pair, `organism_<name>_<family>`."""
