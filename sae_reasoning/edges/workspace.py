"""A saved workspace of W&B that shows an experiment on a pair, built with wandb-workspaces.

It only arranges what stages have logged: verdicts, the table of latents with a page of evidence
each, dose and gap curves, training curves, and the tables behind them. It can be built and looked
at without a login; saving it needs one.
"""

from dataclasses import dataclass
from typing import Any

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.tracker import DOSE_CURVES, GAP_CURVE, LATENTS, LINES, VERDICTS, has_key

_INSTALL = "pip install 'sae_reasoning[dashboard]'"


@dataclass(frozen=True)
class Part:
    """A section of the workspace.

    Attributes:
        title: Heading.
        tables: Names of logged tables.
        charts: Names of logged curves, with the columns of x, y and line.
        curves: Names of metrics along a training.
        pictures: Names of logged pictures.
    """

    title: str
    tables: tuple[str, ...] = ()
    charts: tuple[tuple[str, str, str, str], ...] = ()
    curves: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


def layout(layers: list[int]) -> list[Part]:
    """What stands where, the answer first."""
    return [
        Part("What became of each behaviour", tables=(VERDICTS,)),
        Part("Latents to review", tables=(LATENTS,)),
        Part(
            "What edits do",
            tables=("effects", "sets", "off_target"),
            charts=((DOSE_CURVES, "dose", "difference", "line"),),
            pictures=("effects",),
        ),
        Part(
            "The base, steered at the right moments",
            charts=((GAP_CURVE, "share_steered", "gap_recovered", "line"),),
            tables=("hybrid",),
        ),
        Part(
            "What the attacks left",
            tables=("attacks on span detectors", "attacks on onset predictors"),
        ),
        Part(
            "Dictionaries",
            tables=("quality",),
            curves=tuple(f"layer_{layer}/{name}" for layer in layers for name in ("fvu", "loss")),
        ),
    ]


def build(cfg: Config, entity: str) -> Any:
    """The workspace, unsaved.

    Args:
        cfg: Whose runs it shows: those of the pair and experiment.
        entity: W&B user or team.

    Raises:
        ConfigError: wandb-workspaces isn't installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as spaces
    except ImportError as error:
        raise ConfigError(f"dashboard needs wandb-workspaces: {_INSTALL}") from error

    def shown(part: Part) -> list[Any]:
        return [
            *(panels.WeavePanelSummaryTable(table_name=name) for name in part.tables),
            *(
                panels.CustomChart(
                    query={"summaryTable": {"tableKey": f"{name}_table"}},
                    chart_name=LINES,
                    chart_fields={"step": x, "lineKey": line, "lineVal": y},
                    chart_strings={"title": name, "xname": x},
                )
                for name, x, y, line in part.charts
            ),
            *(panels.LinePlot(title=name, x="step", y=[name]) for name in part.curves),
            *(panels.MediaBrowser(title=name, media_keys=[name]) for name in part.pictures),
        ]

    group = f"{cfg.experiment}/{cfg.pair.name}"
    return spaces.Workspace(
        entity=entity,
        project=cfg.tracker.project,
        name=group,
        sections=[
            spaces.Section(name=part.title, panels=shown(part), is_open=True)
            for part in layout(cfg.layers)
        ],
        runset_settings=spaces.RunsetSettings(filters=[spaces.Metric("Group") == group]),
    )


def save(cfg: Config) -> str:
    """Save the workspace to W&B.

    Returns:
        Its address.

    Raises:
        ConfigError: Nobody is logged in, or W&B can't be reached or refuses; with what to do.
    """
    if not has_key():
        runs = cfg.folder / "wandb"
        raise ConfigError(
            "dashboard saves a workspace to W&B, and nobody is logged in: run `wandb login`, send "
            f"what was logged offline with `wandb sync {runs}/offline-run-*`, then run "
            "`make dashboard` again"
        )
    workspace = build(cfg, cfg.tracker.entity or _who())
    try:
        workspace.save()
    except Exception as error:  # The network, the server, or the client's own checks.
        raise ConfigError(_refused(error)) from error
    return str(workspace.url)


def _who() -> str:
    """Whoever is logged in."""
    import wandb

    try:
        return str(wandb.Api().default_entity)
    except Exception as error:
        raise ConfigError(_refused(error)) from error


def _refused(error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    return (
        f"W&B can't be asked for a workspace ({reason}); see that it can be reached and that "
        "tracker.project and tracker.entity are yours, then run `make dashboard` again"
    )
