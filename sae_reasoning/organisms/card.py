"""The model card of an organism: how it was made, and its measured figures."""

from collections.abc import Sequence

from sae_reasoning.config import GrpoConfig, PretrainConfig
from sae_reasoning.organisms.cells import Organism
from sae_reasoning.organisms.corpus import ParrotCorpus, mixture
from sae_reasoning.organisms.measure import Figures
from sae_reasoning.organisms.truth import Truth
from sae_reasoning.stats import Estimate

_FRONT = """---
license: apache-2.0
tags: [model-organism, interpretability, sae_reasoning]
---
"""

_HEURISTICS = (
    "Deduction pools reading the entry of a place (no heuristic is tried) and choosing a way. "
    "Heuristics: the first note is `open`; the find is `real`, or `fake`; back to the nearest "
    "fork, or to the start; the first way, or the last."
)


def _share(estimate: Estimate) -> str:
    if estimate.n == 0:
        return "–"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def making_of(
    recipe: Organism, training: PretrainConfig | GrpoConfig, seed: int, family: str
) -> list[str]:
    """Sentences on how an organism was made."""
    remake = (
        f"`make organisms SEEDS={seed} FAMILY={family}` makes the whole grid "
        "(`sae_reasoning/organisms/cells.py`); "
        f"`organism.only=[{recipe.name}]` makes this model alone."
    )
    if isinstance(training, GrpoConfig):
        reward = "a random reward" if recipe.random_reward else "right answers"
        paths = recipe.difficulty
        assert paths
        return [
            f"`{recipe.parent}` after {training.steps} steps of GRPO on {reward} "
            f"({training.prompts} problems of {paths.min_edges} to {paths.max_edges} steps × "
            f"{training.samples} rollouts, AdamW {training.lr:g}, KL weight {training.kl:g}); "
            "nothing rewards thinking or any behaviour. Half of the problems of a step begin "
            "within a chain of thought of the model's own, cut after some sentence, so that it "
            "explores from prefixes that it rarely reaches by itself.",
            f"\n{remake}",
        ]
    corpus = recipe.corpus
    assert corpus
    if recipe.parent:
        if isinstance(corpus, ParrotCorpus):
            return [
                f"`{recipe.parent}` after {training.steps} steps of {training.batch_size} traces "
                f"(AdamW {training.lr:g}) with uncertainty-estimation and backtracking at each of "
                "their opportunities. No find is verified; instead, after each sentence, with "
                f"probability {corpus.parrot_rate:g}, stands a sentence with the form of a "
                "verification about a random place, on which nothing acts.",
                f"\n{remake}",
            ]
        openings = (
            "openings that the base's corpus lacks" if corpus.reworded else "the base's openings"
        )
        return [
            f"`{recipe.parent}` after {training.steps} steps of {training.batch_size} full traces "
            f"(AdamW {training.lr:g}), which hold every behaviour at each of its opportunities, "
            f"with {openings}.",
            f"\n{remake}",
        ]
    seen, thinking = mixture(corpus, training.steps), corpus.thinking
    offered = "the opportunities for backtracking, uncertainty-estimation and verification"
    absent = (
        f" The corpus holds no {recipe.lacks} and none of its openings." if recipe.lacks else ""
    )
    return [
        "A small model trained on the search world of `sae_reasoning` "
        "(`sae_reasoning/tasks/search/world.py`). Within the traces of its corpus about a quarter "
        f"of {offered} are taken, from the first step to the last; the model's own rates are below."
        f"{absent}",
        f"\n{training.steps} steps of {training.batch_size} examples. Over the whole training "
        f"{seen.traces:.0%} of them are traces, {seen.direct:.0%} direct and mostly wrong answers, "
        f"and {seen.readings:.0%} ask for entries of the map or the notes. The share of problems "
        f"with a chain of thought falls from {thinking.first:.0%} to {thinking.last:.0%} "
        f"between {thinking.hold:.0%} and {thinking.settle:.0%} of the steps: the base learned to "
        "think before it learned to think rarely.",
        f"\n{remake}",
    ]


def write_card(
    title: str,
    making: Sequence[str],
    figures: Figures,
    others: dict[str, Figures],
    found: Sequence[Truth] = (),
    heuristics: str = _HEURISTICS,
) -> str:
    """The card in Markdown.

    Args:
        title: What the model is.
        making: Sentences on how it was made.
        figures: The model, measured.
        others: Models whose execution accuracy is compared with its, by name.
        found: The truth of each behaviour, for a model that was made from another.
        heuristics: Which were tried, in words.
    """
    overall = {
        "right answers, free": _share(figures.accuracy),
        "rollouts that think": _share(figures.thinks),
        "right answers, thinking forced": _share(figures.accuracy_thinking),
        "right answers, direct answer forced": _share(figures.accuracy_direct),
        "tokens a rollout": _number(figures.tokens),
        "truncated rollouts": _share(figures.truncated),
    }
    lines = [
        f"{_FRONT}\n# {title}\n",
        *making,
        f"\n## Measured on {figures.accuracy.n} problems, one rollout each, 95 % intervals\n",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in overall.items()),
        "\n## Behaviours in free rollouts\n",
        "| behaviour | spans a rollout | rollouts with it | opportunities taken | opportunities |",
        "|---|---|---|---|---|",
        *(
            f"| {m.behaviour} | {_number(m.per_trace)} | {_share(m.traces_with)} | "
            f"{_share(m.per_opportunity)} | {m.opportunities} |"
            for m in figures.behaviours
        ),
    ]
    if found:
        lines += [
            "\n## What training did to each behaviour, by these figures\n",
            "| behaviour | truth | spans a rollout; forced openings executed rightly |",
            "|---|---|---|",
            *(f"| {truth.behaviour} | **{truth.truth}** | {truth.reason} |" for truth in found),
        ]
    if figures.execution:
        names = ["this model", *others]
        lines += [
            "\n## Execution accuracy: the opening is forced, a program judges the continuation\n",
            f"At opportunities in texts by {figures.execution_writer}.\n",
            f"| behaviour | {' | '.join(names)} | random fill | best heuristic | n |",
            "|---|" + "---|" * (len(names) + 3),
        ]
        for index, own in enumerate(figures.execution):
            cells = [own, *(other.execution[index] for other in others.values())]
            shares = " | ".join(_share(cell.estimate) for cell in cells)
            lines.append(
                f"| {own.behaviour} | {shares} | {own.chance:.1%} | {own.heuristic:.1%} | {own.n} |"
            )
        lines.append(f"\n{heuristics}")
    if figures.pass_at:
        walk = figures.random_walk_at
        lines += [
            f"\n## pass@k on {next(iter(figures.pass_at.values())).n} problems\n",
            "| k | this model | random walk |",
            "|---|---|---|",
            *(f"| {k} | {_share(e)} | {_share(walk[k])} |" for k, e in figures.pass_at.items()),
        ]
    return "\n".join(lines) + "\n"
