"""What a prompt or forced words can do for the base: every variant with its control."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sae_reasoning.config import ElicitConfig
from sae_reasoning.config.elicit import INTERVENTIONS
from sae_reasoning.elicitation.conditions import (
    CONTROL,
    INTERVENTION,
    Prompting,
    direct_beginning,
    thinking_prefix,
)
from sae_reasoning.elicitation.openings import (
    anywhere,
    at_rates,
    other_words,
    plain_sentences,
    rl_rates,
    where_called_for,
)
from sae_reasoning.records import BASE, Trace
from sae_reasoning.tasks.protocol import Task

PROMPT, TOOLS, CRITIQUES, GATE, BIASES, BEST_OF, HYBRID = INTERVENTIONS
TRAINED = frozenset({CRITIQUES, GATE, BIASES})
AT_OPPORTUNITIES = "openings forced at opportunities"


@dataclass(frozen=True)
class Variant:
    """One way to prompt the base.

    Attributes:
        intervention: Its name.
        name: Of the variant.
        prompting: What the base is given.
        lacks: What it needs and isn't there.
        role: `intervention` or `control`.
    """

    intervention: str
    name: str
    prompting: Prompting
    lacks: tuple[str, ...] = ()
    role: str = INTERVENTION


@dataclass(frozen=True)
class Material:
    """What variants are made of.

    Attributes:
        task: Formats, instructions, openings.
        own: Options.
        behaviours: Whose openings are written.
        traces: Of both models.
        reads: Whether the base's tokenizer has all of some words.
        listens: Whether the annotator can follow a response that is being written.
    """

    task: Task
    own: ElicitConfig
    behaviours: Sequence[str]
    traces: Sequence[Trace]
    reads: Callable[[str], bool]
    listens: bool


def prompts(material: Material) -> Iterator[Variant]:
    """Made to think by the prefix of thinking, or by an instruction; the control can't think."""
    task, own = material.task, material.own
    prefix, direct = thinking_prefix(task), direct_beginning(task.formats[BASE])
    lacks = () if prefix else ("thinking prefix",)
    yield Variant(PROMPT, "thinking prefix forced", Prompting(beginning=prefix), lacks)
    words = own.think_instruction or (task.instructions.think if task.instructions else "")
    yield Variant(PROMPT, "asked to think", *_asked(material, words))
    lacks = () if direct else ("answer prefix",)
    yield Variant(PROMPT, "answer prefix forced", Prompting(beginning=direct), lacks, CONTROL)


def tools(material: Material, share: Callable[[], float]) -> Iterator[Variant]:
    """Behaviours named in the prompt, or their openings written at the ends of sentences.

    All have the prefix of thinking forced, so what tools add stands against that alone. The control
    has openings without their moment; where there is no rule for the moment, other words instead.

    Args:
        material: What variants are made of.
        share: Of ends of sentences at which openings were written at opportunities; known once that
            variant is rolled out.
    """
    task, own = material.task, material.own
    words = own.tools_instruction
    if not words and task.instructions:
        words = task.instructions.tools(own.seed)
    yield Variant(TOOLS, "behaviours in the prompt", *_asked(material, words))
    openings, prefix, seed = task.openings, thinking_prefix(task), own.seed
    behaviours = [one for one in material.behaviours if openings and openings.usual(one)]
    if openings is None or not behaviours or not material.listens:
        needs = {"openings": bool(behaviours), "streaming annotator": material.listens}
        missing = tuple(name for name, is_there in needs.items() if not is_there)
        yield Variant(TOOLS, AT_OPPORTUNITIES, Prompting(), missing)
    elif task.opportunities_by_rule:
        choose = where_called_for(openings, behaviours, seed)
        yield Variant(TOOLS, AT_OPPORTUNITIES, Prompting(beginning=prefix, openings=choose))
        choose = anywhere(openings, behaviours, share(), seed)
        control = Prompting(beginning=prefix, openings=choose)
        yield Variant(TOOLS, "openings forced anywhere", control, (), CONTROL)
    else:
        rates = rl_rates(material.traces, behaviours)
        sentences = plain_sentences(material.traces, task.sentences)
        lacks = () if rates and sentences else ("behaviours in the RL model's select traces",)
        choose = at_rates(openings, rates, seed)
        forced = Prompting(beginning=prefix, openings=choose)
        yield Variant(TOOLS, "openings forced at the rate of RL", forced, lacks)
        control = Prompting(beginning=prefix, openings=other_words(choose, sentences, seed))
        yield Variant(TOOLS, "other words forced as often", control, lacks, CONTROL)


def _asked(material: Material, words: str) -> tuple[Prompting, tuple[str, ...]]:
    """A prompt with an instruction, and what is missing for it."""
    instructions = material.task.instructions
    if instructions is None or not words:
        return Prompting(), ("instructions",)
    lacks = () if material.reads(words) else ("tokens for its instruction",)
    prefix = thinking_prefix(material.task)
    return Prompting(lambda problem: instructions.add(problem.prompt, words), prefix), lacks
