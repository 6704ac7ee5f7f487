"""Figures of effects, recovery, transfer, training courses and elicitation (matplotlib)."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from sae_reasoning.edges.artifacts import publish
from sae_reasoning.texts import number

_LABELS = {
    "edit": "edit",
    "matched_latent": "matched latents",
    "random_direction": "random directions",
    "random_positions": "random positions",
    "other_behaviour": "other behaviours' latents",
    "mean_difference": "mean difference (baseline)",
    "permuted_match": "matched latents of other latents",
    "own_latents": "the pair's own latents (baseline)",
}
_COLOURS = {
    "edit": "#1f5fa8",
    "matched_latent": "#b5651d",
    "random_direction": "#8a8a8a",
    "random_positions": "#c9c9c9",
    "other_behaviour": "#d9a441",
    "mean_difference": "#3a8f5d",
    "permuted_match": "#d9a441",
    "own_latents": "#3a8f5d",
}

_MODELS = {"base": "base", "rl": "RL model"}
_TRANSFERS = ("#1f5fa8", "#b5651d", "#7a4fa3")

COURSE_COLOURS = ("#8a8a8a", "#1f5fa8", "#b5651d")
"""Of the curves of a course, in their order."""

_POLICIES = {
    "token-swap": ("RL model writes the token", "#444444"),
    "oracle": ("oracle", "#1f5fa8"),
    "latent": ("base's own latents", "#2e8b57"),
    "cue-word": ("cue word", "#b5651d"),
    "random": ("random times", "#8a8a8a"),
    "random-vector": ("random vector", "#c9a0c9"),
}
_COSTS = (
    ("training_tokens", "training\ntokens (log)"),
    ("tokens_steered", "share of\ntokens steered"),
    ("tokens_written", "tokens written\nan answer (log)"),
)
_STYLES = ("-", "--", ":")


def plot_recovery(found: pd.DataFrame, path: Path) -> None:
    """Gap recovered over the share of tokens steered, with 95 % intervals.

    A panel for all problems, and for those that need each behaviour where there is a gap. Of
    behaviours that equally many problems need, the first is shown.

    Args:
        found: Table of `steering.recovery.recovery`.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    curves = found[found.defined & found.policy.isin(list(_POLICIES)) & found.budget.notna()]
    sizes = curves.drop_duplicates("behaviour").drop_duplicates("n")
    behaviours = list(sizes.behaviour)
    figure = Figure(figsize=(3 + 3.4 * max(len(behaviours), 1), 3.8), layout="constrained")
    axes = figure.subplots(1, max(len(behaviours), 1), squeeze=False, sharey=True)
    for axis, behaviour in zip(axes[0], behaviours, strict=False):
        part = curves[curves.behaviour == behaviour]
        for policy, (label, colour) in _POLICIES.items():
            own = part[part.policy == policy]
            for style, (vector, line) in zip(
                _STYLES, own.groupby("vector", sort=False), strict=False
            ):
                line = line.sort_values("share_steered")
                reach = [line.gap_recovered - line.low, line.high - line.gap_recovered]
                axis.errorbar(
                    line.share_steered,
                    line.gap_recovered,
                    yerr=[r.clip(lower=0) for r in reach],
                    fmt=f"o{style}",
                    markersize=3,
                    capsize=2,
                    linewidth=1,
                    color=colour,
                    label=f"{label}, {vector}" if policy in ("oracle", "latent") else label,
                )
        for level in (0, 1):
            axis.axhline(level, color="black", linewidth=0.6)
        title = "all problems" if behaviour == "all" else f"problems that need {behaviour}"
        axis.set_title(f"{title}\n(n = {part.n.iloc[0]})", fontsize=9)
        axis.set_xlabel("share of tokens steered", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0][0].set_ylabel("share of the accuracy gap recovered", fontsize=8)
    if behaviours:
        handles, labels = axes[0][0].get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        figure.legend(
            shown.values(), shown.keys(), loc="outside right upper", fontsize=7, frameon=False
        )
    with publish(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def plot_effects(found: pd.DataFrame, path: Path) -> None:
    """Change of each behaviour's starts per opportunity, by the edit and its controls.

    A panel for each model and edit, of the behaviours whose edit was measured; without any, no
    picture. A change whose interval is unknown is a point alone.

    Args:
        found: Rows of `steering.effects.effects` of one edit a model and behaviour.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    own = found[found.outcome == "rate_per_opportunity/" + found.behaviour]
    edited = own[(own.condition == "edit") & own.difference.notna()]
    keys = ["model", "edit", "behaviour"]
    drawn = own.merge(edited[keys].drop_duplicates(), on=keys)
    panels = list(drawn.groupby(["model", "edit"], sort=False))
    if not panels:
        return
    figure = Figure(figsize=(2.4 + 3.2 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, ((model, edit), own) in zip(axes[0], panels, strict=True):
        behaviours = list(own.behaviour.unique())
        present = [condition for condition in _LABELS if (own.condition == condition).any()]
        for shift, condition in enumerate(present):
            shown = own[own.condition == condition].set_index("behaviour").reindex(behaviours)
            place = [i + 0.13 * (shift - (len(present) - 1) / 2) for i in range(len(behaviours))]
            centre = shown.difference
            reach = [(centre - shown.low).clip(lower=0), (shown.high - centre).clip(lower=0)]
            axis.errorbar(
                place,
                centre,
                yerr=reach,
                fmt="o",
                markersize=4,
                capsize=2,
                color=_COLOURS[condition],
                label=_LABELS[condition],
            )
        none = own[own.condition == "none"].set_index("behaviour").loc[behaviours]
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(
            range(len(behaviours)),
            [f"{b}\n{number(none.value[b])} without" for b in behaviours],
            fontsize=7,
        )
        problems = f"n = {own.num_problems.iloc[0]} problems, {own.split.iloc[0]} split"
        axis.set_title(f"{edit}, {_MODELS.get(model, model)}\n({problems})", fontsize=9)
        axis.tick_params(axis="y", labelsize=7)
    axes[0][0].set_ylabel("change in starts per opportunity", fontsize=8)
    labelled = [axis.get_legend_handles_labels() for axis in axes[0]]
    key = {label: handle for found in labelled for handle, label in zip(*found, strict=True)}
    figure.legend(key.values(), key.keys(), loc="outside right upper", fontsize=7, frameon=False)
    with publish(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def plot_transfer(table: pd.DataFrame, path: Path) -> None:
    """Change of each behaviour by latents matched to another pair's, and by the pair's own.

    A panel for each target and edit, of the largest sets. A change that fails the off-target guard
    is hollow.

    Args:
        table: `transfer.parquet`.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    sizes = table.groupby(["target", "edit", "behaviour", "source"]).set_size.transform("max")
    panels = list(table[table.set_size == sizes].groupby(["target", "edit"], sort=False))
    targets = table.target.nunique()
    figure = Figure(figsize=(9.5, 1 + 2.6 * targets), layout="constrained")
    axes = figure.subplots(targets, -(-len(panels) // targets), squeeze=False, sharey=True)
    for axis, ((target, edit), part) in zip(axes.flat, panels, strict=False):
        behaviours = list(part.behaviour.unique())
        across = part[part.source != target]
        series = [("own latents", "#3a8f5d", part[part.source == target], "difference", "")]
        for place, (source, own) in enumerate(across.groupby("source", sort=False)):
            said = f"matched to those of {source}"
            series.append((said, _TRANSFERS[place % 3], own, "difference", ""))
            series.append(
                ("matched latents of other latents", "#8a8a8a", own, "permuted", "permuted_")
            )
        for shift, (label, colour, own, column, prefix) in enumerate(series):
            known = own[f"{prefix}coherent"].fillna(False).astype(bool)
            for row, is_coherent in zip(own.itertuples(), known, strict=True):
                centre = getattr(row, column)
                low, high = (getattr(row, f"{prefix}{bound}") for bound in ("low", "high"))
                axis.errorbar(
                    [behaviours.index(row.behaviour) + 0.15 * (shift - (len(series) - 1) / 2)],
                    [centre],
                    yerr=[[max(centre - low, 0)], [max(high - centre, 0)]],
                    fmt="o",
                    markersize=4,
                    capsize=2,
                    color=colour,
                    markerfacecolor=colour if is_coherent else "none",
                    label=label,
                )
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(range(len(behaviours)), behaviours, fontsize=7)
        axis.set_title(f"{edit}, {part.model.iloc[0]} of {target}", fontsize=9)
        axis.tick_params(axis="y", labelsize=7)
        handles, labels = axis.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        axis.legend(shown.values(), shown.keys(), fontsize=6, frameon=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("change in starts per opportunity", fontsize=8)
    with publish(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def plot_course(table: pd.DataFrame, curves: Mapping[str, str], path: Path) -> None:
    """Probabilities at every step, with 95 % intervals; a panel for each behaviour.

    Args:
        table: Rows of `course.parquet`.
        curves: Label of each measure that is drawn, three at most; a title counts the starts of the
            last.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    followed = table.dropna(subset=["step"]).sort_values("step")
    behaviours = [name for name in followed.behaviour.unique() if name]
    figure = Figure(figsize=(1 + 3.2 * len(behaviours), 3.4), layout="constrained")
    axes = figure.subplots(1, len(behaviours), squeeze=False, sharey=True)
    for axis, behaviour in zip(axes[0], behaviours, strict=True):
        part, count = followed[followed.behaviour.isin([behaviour, ""])], 0
        for (measure, label), colour in zip(curves.items(), COURSE_COLOURS, strict=False):
            own = part[part.measure == measure].dropna(subset=["value"])
            axis.plot(own.step, own.value, "o-", markersize=3, color=colour, label=label)
            axis.fill_between(own.step, own.low, own.high, color=colour, alpha=0.15, linewidth=0)
            count = int(own["items"].max()) if len(own) else 0
        axis.set_title(f"{behaviour}\n({count} starts)", fontsize=9)
        axis.set_xlabel("step of the training", fontsize=8)
        axis.set_ylim(-0.02, 1.02)
        axis.tick_params(labelsize=7)
    axes[0][0].set_ylabel("probability, report split", fontsize=8)
    axes[0][-1].legend(fontsize=7, frameon=False)
    with publish(path) as partial:
        figure.savefig(partial, dpi=150, format="png")


def plot_elicitation(table: pd.DataFrame, path: Path) -> None:
    """Gap recovered by every intervention and its control, with the costs of each.

    Controls are hollow. Costs are on axes of their own, logarithmic but for the share of tokens
    steered; a cost that is 0 or unknown has no bar.

    Args:
        table: Rows of `elicit.parquet`.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    known = table[table.gap_defined.astype(bool) & (table.intervention != "base")]
    names = list(known.intervention.unique())
    figure = Figure(figsize=(10, 1.2 + 0.21 * len(known)), layout="constrained")
    gap, *costs = figure.subplots(1, 4, sharey=True, width_ratios=[3, 1, 1, 1])
    for place, row in enumerate(known.itertuples()):
        colour, is_control = f"C{names.index(row.intervention) % 10}", row.role == "control"
        gap.errorbar(
            [row.gap_recovered],
            [place],
            xerr=[
                [max(row.gap_recovered - row.gap_low, 0)],
                [max(row.gap_high - row.gap_recovered, 0)],
            ],
            fmt="o",
            markersize=5,
            capsize=2,
            linewidth=0.8,
            color=colour,
            markerfacecolor="none" if is_control else colour,
        )
        for axis, (column, _) in zip(costs, _COSTS, strict=True):
            if (cost := getattr(row, column)) > 0:
                axis.barh(place, cost, color=colour, alpha=0.35 if is_control else 0.9, height=0.6)
    gap.set_yticks(
        range(len(known)),
        [f"{row.intervention}: {row.condition}" for row in known.itertuples()],
        fontsize=7,
    )
    gap.set_ylim(len(known) - 0.4, -0.6)
    for level, style in ((0, "-"), (1, ":")):
        gap.axvline(level, color="black", linewidth=0.6, linestyle=style)
    gap.set_xlabel("gap recovered, report split (hollow: a control)", fontsize=8)
    for axis, (_, label) in zip(costs, _COSTS, strict=True):
        axis.set_xlabel(label, fontsize=8)
        if "log" in label and axis.patches:
            axis.set_xscale("log")
            axis.set_xlim(left=1)
    for axis in (gap, *costs):
        axis.tick_params(axis="x", labelsize=7)
        axis.grid(axis="y", linewidth=0.3)
        axis.set_axisbelow(True)
    with publish(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
