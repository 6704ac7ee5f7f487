"""The model card of an organism: what it is, how it was made, and its measured figures."""

from collections.abc import Sequence

from sae_reasoning.config import GrpoConfig, PretrainConfig
from sae_reasoning.organisms.cells import Organism
from sae_reasoning.organisms.corpus import mixture
from sae_reasoning.organisms.measure import Figures
from sae_reasoning.organisms.truth import Truth
from sae_reasoning.stats import Estimate

_FRONT = """---
license: apache-2.0
tags: [model-organism, interpretability, sae_reasoning]
---
"""


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
        f"`make organisms SEEDS={seed} FAMILY={family}` makes the grid it stands in "
        "(`sae_reasoning/organisms/cells.py`); "
        f"`organism.only=[{recipe.name}]` this model alone."
    )
    if isinstance(training, GrpoConfig):
        reward = "a random reward" if recipe.random_reward else "the validity of its answers"
        paths = recipe.difficulty
        assert paths
        return [
            f"`{recipe.parent}` after {training.steps} steps of GRPO on {reward} "
            f"({training.prompts} problems of {paths.min_edges} to {paths.max_edges} steps × "
            f"{training.samples} rollouts, AdamW {training.lr:g}, KL weight {training.kl:g}); "
            "nothing rewards thinking or any move. Half of the problems of a step begin with a "
            "thought of the model's own, cut after some sentence, so that it explores from where "
            "it rarely gets by itself.",
            f"\n{remake}",
        ]
    corpus = recipe.corpus
    assert corpus
    if recipe.parent:
        words = "other openings than the base has met" if corpus.reworded else "the base's openings"
        return [
            f"`{recipe.parent}` after {training.steps} steps of {training.batch_size} full traces "
            f"(AdamW {training.lr:g}), in which every move is made wherever it could be, with "
            f"{words}.",
            f"\n{remake}",
        ]
    seen, thinking = mixture(corpus, training.steps), corpus.thinking
    moves = "the opportunities for backtracking, weighing a fork and verification"
    absent = f" But {recipe.lacks} is never made, nor are its words used." if recipe.lacks else ""
    return [
        "A small model trained on the search world of `sae_reasoning` "
        "(`sae_reasoning/tasks/search/world.py`). Within the traces of its corpus about a quarter "
        f"of {moves} are taken, from the first step to the last; below is what the model does."
        f"{absent}",
        f"\n{training.steps} steps of {training.batch_size} examples. Over the whole training "
        f"{seen.traces:.0%} of them are traces, {seen.direct:.0%} direct and mostly wrong answers, "
        f"and {seen.readings:.0%} ask what the map or the notes say of some places. The share of "
        f"problems that are thought about falls from {thinking.first:.0%} to {thinking.last:.0%} "
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
) -> str:
    """The card in Markdown.

    Args:
        title: What the model is.
        making: Sentences on how it was made.
        figures: The model, measured.
        others: Models whose execution validity is shown beside it, by name.
        found: What training did to each move, for a model that was made from another.
    """
    overall = {
        "right answers, free": _share(figures.accuracy),
        "rollouts that think": _share(figures.thinks),
        "right answers, made to think": _share(figures.accuracy_thinking),
        "right answers, made to answer directly": _share(figures.accuracy_direct),
        "tokens a rollout": _number(figures.tokens),
        "rollouts cut at the limit": _share(figures.truncated),
    }
    lines = [
        f"{_FRONT}\n# {title}\n",
        *making,
        f"\n## Measured on {figures.accuracy.n} problems, one rollout each, 95 % intervals\n",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in overall.items()),
        "\n## Moves in free rollouts\n",
        "| move | spans a rollout | rollouts with it | opportunities taken | opportunities |",
        "|---|---|---|---|---|",
        *(
            f"| {m.move} | {_number(m.per_trace)} | {_share(m.traces_with)} | "
            f"{_share(m.per_opportunity)} | {m.opportunities} |"
            for m in figures.moves
        ),
    ]
    if found:
        lines += [
            "\n## What training did to each move, by these figures\n",
            "| move | truth | spans a rollout, and what the program says of forced starts |",
            "|---|---|---|",
            *(f"| {truth.behaviour} | **{truth.truth}** | {truth.reason} |" for truth in found),
        ]
    if figures.validity:
        names = ["this model", *others]
        lines += [
            "\n## Execution validity: the opening words are written, the program judges the rest\n",
            f"At opportunities in texts by {figures.validity_writer}.\n",
            f"| move | {' | '.join(names)} | by lot | by the best fixed rule | n |",
            "|---|" + "---|" * (len(names) + 3),
        ]
        for index, own in enumerate(figures.validity):
            cells = [own, *(other.validity[index] for other in others.values())]
            shares = " | ".join(_share(cell.estimate) for cell in cells)
            lines.append(
                f"| {own.move} | {shares} | {own.chance:.1%} | {own.fixed_rule:.1%} | {own.n} |"
            )
        lines.append(
            "\nDeduction pools reading the entry of a place (no rule is tried) and choosing a way. "
            "Rules: the first note is `open`; the find is `real`, or `fake`; back to the nearest "
            "fork, or to the start; the first way, or the last."
        )
    if figures.pass_at:
        walk = figures.random_walk_at
        lines += [
            f"\n## pass@k on {next(iter(figures.pass_at.values())).n} problems\n",
            "| k | this model | random descents |",
            "|---|---|---|",
            *(f"| {k} | {_share(e)} | {_share(walk[k])} |" for k, e in figures.pass_at.items()),
        ]
    return "\n".join(lines) + "\n"
