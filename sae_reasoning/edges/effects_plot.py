"""A picture of what edits did (matplotlib)."""

from pathlib import Path

import pandas as pd

from sae_reasoning.edges.artifacts import publish

_LABELS = {
    "edit": "edit",
    "matched_latent": "matched latents",
    "random_direction": "random direction",
}
_COLOURS = {"edit": "#1f5fa8", "matched_latent": "#b5651d", "random_direction": "#8a8a8a"}


def plot_effects(found: pd.DataFrame, path: Path) -> None:
    """Change of each move per trace, edit beside controls; a panel for each model and edit.

    A change whose interval is unknown is a point alone.

    Args:
        found: Table of `steering.effects.effects`.
        path: Picture to publish, PNG.
    """
    from matplotlib.figure import Figure

    panels = list(found.groupby(["model", "edit"], sort=False))
    figure = Figure(figsize=(1 + 3.2 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, ((model, edit), part) in zip(axes[0], panels, strict=True):
        behaviours = list(part.behaviour.unique())
        own = part[part.outcome == "rate_per_trace/" + part.behaviour]
        for shift, (condition, label) in enumerate(_LABELS.items()):
            shown = own[own.condition == condition].set_index("behaviour").loc[behaviours]
            place = [i + 0.22 * (shift - 1) for i in range(len(behaviours))]
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
                label=label,
            )
        none = own[own.condition == "none"].set_index("behaviour").loc[behaviours]
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(
            range(len(behaviours)),
            [f"{b}\n{none.value[b]:.2f} without" for b in behaviours],
            fontsize=7,
        )
        problems = f"n = {own.num_problems.iloc[0]} problems, {own.split.iloc[0]} split"
        axis.set_title(f"{edit}, {model}\n({problems})", fontsize=9)
        axis.tick_params(axis="y", labelsize=7)
    axes[0][0].set_ylabel("change in moves per trace", fontsize=8)
    axes[0][-1].legend(fontsize=7, frameon=False)
    with publish(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
