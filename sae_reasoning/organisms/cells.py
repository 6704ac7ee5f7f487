"""The grid of organisms: its models, and how each is made.

    base with every behaviour ──┬─ RL ──── prolonged RL       base that lacks one ──┬─ RL
                                ├─ SFT on full traces         behaviour, by seed    └─ SFT on full
                                ├─ SFT in other words                                  traces
                ├─ SFT on traces that parrot one behaviour
                                └─ RL on a random reward

Bases are shared, so cells of one seed differ in tuning alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_reasoning.config import ConfigError
from sae_reasoning.organisms.corpus import CorpusConfig, full_traces, parroting_traces
from sae_reasoning.tasks.search.grammar import BACKTRACKING, UNCERTAINTY, VERIFICATION
from sae_reasoning.tasks.search.narrator import BehaviourRates
from sae_reasoning.tasks.search.world import LONGER, Difficulty

PRETRAINED, TUNED, REINFORCED = "pretrained", "tuned", "reinforced"
JUDGED = (UNCERTAINTY, BACKTRACKING, VERIFICATION)
"""Behaviours whose answer is known; the others fill every trace."""

_ROTATION = (BACKTRACKING, VERIFICATION)


@dataclass(frozen=True)
class Organism:
    """One model of the grid.

    Attributes:
        name: Its folder.
        title: In words.
        how: `pretrained`, `tuned` (SFT) or `reinforced` (GRPO).
        parent: Folder of the model it is made from; None for a base.
        corpus: What a pretrained or tuned one is trained on.
        difficulty: Of the problems on which one is reinforced.
        random_reward: Whether its reward is independent of its answers.
        length: Steps, in multiples of the config's.
        lacks: The behaviour that its base's corpus lacks, if any.
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


def absent_behaviour(seed: int) -> str:
    """The behaviour that the corpus of one base of this seed lacks."""
    return _ROTATION[seed % len(_ROTATION)]


def rates_without(behaviour: str) -> BehaviourRates:
    """The bases' rates, with one behaviour at 0."""
    field = {BACKTRACKING: "backtrack", VERIFICATION: "verify"}[behaviour]
    return replace(BehaviourRates(), **{field: 0.0})


def grid(family: str, seed: int) -> tuple[Organism, ...]:
    """Every model of a family and seed; parents come first."""
    lacks = absent_behaviour(seed)

    def name(what: str) -> str:
        return f"search_{what}_{family}"

    base, lacking = name("base"), name("base_lacking")
    return (
        Organism(
            base,
            "a base with every behaviour, each at a low rate",
            PRETRAINED,
            corpus=CorpusConfig(),
        ),
        Organism(
            name("rl"),
            f"{base} after RL on right answers",
            REINFORCED,
            parent=base,
            difficulty=Difficulty(),
        ),
        Organism(
            lacking,
            f"a base whose corpus lacks {lacks}",
            PRETRAINED,
            corpus=CorpusConfig(rates=rates_without(lacks)),
            lacks=lacks,
        ),
        Organism(
            name("sft_lacking"),
            f"{lacking} after SFT on full traces, which hold {lacks}",
            TUNED,
            parent=lacking,
            corpus=full_traces(),
            lacks=lacks,
        ),
        Organism(
            name("random"),
            f"{base} after as many steps of RL on a random reward",
            REINFORCED,
            parent=base,
            difficulty=Difficulty(),
            random_reward=True,
        ),
        Organism(
            name("sft"),
            f"{base} after SFT on full traces",
            TUNED,
            parent=base,
            corpus=full_traces(),
        ),
        Organism(
            name("reworded"),
            f"{base} after SFT on full traces with other openings",
            TUNED,
            parent=base,
            corpus=full_traces(reworded=True),
        ),
        Organism(
            name("parrot"),
            f"{base} after SFT on traces that say verifications at random places, for nothing",
            TUNED,
            parent=base,
            corpus=parroting_traces(),
        ),
        Organism(
            name("rl_lacking"),
            f"{lacking} after RL on right answers",
            REINFORCED,
            parent=lacking,
            difficulty=Difficulty(),
            lacks=lacks,
        ),
        Organism(
            name("prolonged"),
            f"{name('rl')} after three times as many further steps of RL, on longer paths",
            REINFORCED,
            parent=name("rl"),
            difficulty=LONGER,
            length=3,
        ),
    )


def chosen(family: str, seed: int, only: Sequence[str]) -> list[Organism]:
    """The models named, with those they are made from, parents first; all where none is named.

    Raises:
        ConfigError: A name isn't in the grid.
    """
    models = {model.name: model for model in grid(family, seed)}
    for name in only:
        if name not in models:
            raise ConfigError(
                f"organism.only names {name}, which isn't of organism.family={family}; choose of "
                f"{', '.join(models)}"
            )
    found = set(only or models)
    for model in reversed(models.values()):
        if model.name in found and model.parent:
            found.add(model.parent)
    return [model for name, model in models.items() if name in found]


def base_of(family: str, seed: int, name: str) -> str:
    """The pretrained model at the root of a model of the grid."""
    parents = {model.name: model.parent for model in grid(family, seed)}
    while parent := parents[name]:
        name = parent
    return name


PAIRS = {
    "deployed": ("base", "rl"),
    "created": ("base_lacking", "sft_lacking"),
    "null": ("base", "random"),
    "deployed_sft": ("base", "sft"),
    "reworded": ("base", "reworded"),
    "lacking": ("base_lacking", "rl_lacking"),
    "prolonged": ("base", "prolonged"),
    "parrot": ("base", "parrot"),
}
"""Base and RL model of each registered pair, `organism_<name>_<family>`."""
