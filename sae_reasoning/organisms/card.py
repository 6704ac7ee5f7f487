"""The model card of an organism: what it is, how it was made, and its measured figures."""

from collections.abc import Sequence

from sae_reasoning.organisms.measure import Figures
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


def write_card(
    title: str, making: Sequence[str], figures: Figures, others: dict[str, Figures]
) -> str:
    """The card in Markdown.

    Args:
        title: What the model is.
        making: Sentences on how it was made.
        figures: The model, measured.
        others: Models whose execution validity is shown beside it, by name.
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
