"""Where results are logged beside the files: Weights & Biases, or nowhere.

The files of a stage are the result; tracking shows them. So no failure of the tracker ends a stage:
the first one is a warning, and from then on the run is silent. Offline when no API key is set
(`wandb sync` uploads it later), online when one is. What W&B records by default about the machine
(host name, script path, requirements, code) stays off.

Texts of models and data are logged as strings, made fit to be looked at, which W&B shows escaped;
so are names, since W&B refuses a run that holds what isn't Unicode. HTML is logged only where a
caller made it from a template, which does the same to what it shows.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from sae_reasoning.config import TrackerConfig
from sae_reasoning.edges.uploads import MANIFEST, Upload, without_places
from sae_reasoning.texts import shown

_log = logging.getLogger(__name__)

MAX_TABLE_ROWS = 10_000
"""Rows at which W&B cuts a table of its own accord."""
VERDICTS, LATENTS, DOSE_CURVES, GAP_CURVE = "verdicts", "latents", "dose curves", "gap curve"
"""What stages log and the saved workspace shows, by name."""
HTML_COLUMN = "evidence"
"""Column of a table whose cells are pages."""
_MAX_CELL = 2000
_MAX_REASON = 300


@runtime_checkable
class Tracker(Protocol):
    """Receives what a stage found."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log points of curves; `step` is the x axis and may start again for another curve."""

    def table(self, name: str, frame: pd.DataFrame, cells: Sequence[str] = ()) -> None:
        """Log a small table, the best rows first, with a page of HTML in each row if there are."""

    def curves(
        self, name: str, frame: pd.DataFrame, *, x: str, y: str, line: str, title: str
    ) -> None:
        """Log curves: `y` over `x`, one for each value of `line`; other columns come along."""

    def artifact(self, made: Upload, used: Sequence[Upload]) -> None:
        """Log what the stage made and what it read, where it has logged anything at all."""

    def figure(self, name: str, path: Path) -> None:
        """Log a picture from a file."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log single values that sum the stage up."""

    def finish(self) -> None:
        """Close the run; called once."""


class NullTracker:
    """Logs nowhere."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drop the metrics."""

    def table(self, name: str, frame: pd.DataFrame, cells: Sequence[str] = ()) -> None:
        """Drop the table."""

    def curves(
        self, name: str, frame: pd.DataFrame, *, x: str, y: str, line: str, title: str
    ) -> None:
        """Drop the curves."""

    def artifact(self, made: Upload, used: Sequence[Upload]) -> None:
        """Drop the artifact."""

    def figure(self, name: str, path: Path) -> None:
        """Drop the picture."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Drop the values."""

    def finish(self) -> None:
        """Do nothing."""


class WandbTracker:
    """One W&B run, opened when first needed; use `open_tracker`.

    A stage that is up to date logs nothing and so leaves no run behind.
    """

    def __init__(
        self, cfg: TrackerConfig, *, stage: str, group: str, folder: Path, config: Any
    ) -> None:
        self._cfg, self._stage, self._group = cfg, stage, group
        self._folder, self._config = folder, config
        self._run: Any = None
        self._failed = False

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log points of curves; `step` is the x axis and may start again for another curve."""
        values = {shown(name): float(value) for name, value in metrics.items()}
        if step is not None:
            # An ordinary metric: W&B's own step drops whatever comes with a lower one, as the
            # second layer's curve would.
            values["step"] = step
        self._safely(lambda run: run.log(values))

    def table(self, name: str, frame: pd.DataFrame, cells: Sequence[str] = ()) -> None:
        """Log a small table, the best rows first; rows past W&B's limit are left out.

        Args:
            name: Of the table.
            frame: Its rows.
            cells: HTML for a last column, a cell a row; it must show nothing unescaped.
        """

        def send(run: Any) -> None:
            import wandb

            made = _table(frame)
            if cells:
                # Never taken for a path, and without a style sheet from elsewhere.
                pages = [wandb.Html(cell, inject=False, data_is_not_path=True) for cell in cells]
                made.add_column(HTML_COLUMN, pages)
            run.log({shown(name): made})

        self._safely(send)

    def curves(
        self, name: str, frame: pd.DataFrame, *, x: str, y: str, line: str, title: str
    ) -> None:
        """Log curves: `y` over `x`, one for each value of `line`; other columns come along."""

        def send(run: Any) -> None:
            import wandb

            fields = {"step": x, "lineKey": line, "lineVal": y}
            words = {"title": shown(title), "xname": x}
            run.log({shown(name): wandb.plot_table(LINES, _table(frame), fields, words)})

        self._safely(send)

    def artifact(self, made: Upload, used: Sequence[Upload]) -> None:
        """Log what the stage made and what it read, where it has logged anything at all."""
        if self._run is None:
            return

        def send(run: Any) -> None:
            for one in used:
                _use(run, _artifact(one))
            run.log_artifact(_artifact(made), aliases=["latest", made.fingerprint])

        self._safely(send)

    def figure(self, name: str, path: Path) -> None:
        """Log a picture from a file."""

        def send(run: Any) -> None:
            import wandb

            run.log({shown(name): wandb.Image(str(path))})

        self._safely(send)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log single values that sum the stage up."""
        plain = {shown(name): _cell(value) for name, value in values.items()}
        self._safely(lambda run: run.summary.update(plain))

    def finish(self) -> None:
        """Close the run; called once."""
        if self._run is not None:
            self._safely(lambda run: run.finish())

    def _safely(self, send: Callable[[Any], None]) -> None:
        """Send to the run, opening it first; whatever goes wrong ends the tracking only."""
        if self._failed:
            return
        try:
            if self._run is None:
                self._run = self._open()
            send(self._run)
        except Exception as error:  # wandb, its service process, the network and the disk may fail
            self._failed = True
            reason = shown(" ".join(str(error).split()), _MAX_REASON) or type(error).__name__
            _log.warning(
                "W&B failed (%s); the results are in %s, and tracker=none turns it off",
                reason,
                self._folder / self._stage,
            )

    def _open(self) -> Any:
        import wandb

        mode = resolve_mode(self._cfg)
        try:
            return self._init(mode)
        except (wandb.Error, OSError, TimeoutError) as error:
            if mode != "online":
                raise
            _log.warning("W&B can't be reached (%s); logging offline", str(error).split("\n")[0])
            wandb.teardown()
            return self._init("offline")

    def _init(self, mode: Any) -> Any:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._cfg.project,
            entity=self._cfg.entity or None,
            group=shown(self._group),
            job_type=self._stage,
            name=shown(f"{self._group}/{self._stage}"),
            dir=str(self._folder),
            mode=mode,
            config=_readable(without_places(self._config)),
            reinit="finish_previous",
            settings=wandb.Settings(
                x_disable_meta=True,
                host="",
                x_disable_stats=True,
                x_save_requirements=False,
                disable_git=True,
                save_code=False,
                console="off",
                silent=True,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", 30)),
                finish_timeout=120,
            ),
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        return run


def open_tracker(
    cfg: TrackerConfig,
    *,
    stage: str,
    group: str,
    folder: Path,
    config: Any = None,
) -> Tracker:
    """The tracker that the config asks for.

    Args:
        cfg: Kind, project and mode.
        stage: Names the run within its group.
        group: One pair in one experiment.
        folder: Of the pair in the experiment; W&B's files go to `wandb/` in it.
        config: What the stage was asked for, in JSON's types.
    """
    if cfg.kind == "none":
        return NullTracker()
    return WandbTracker(cfg, stage=stage, group=group, folder=folder, config=config)


def resolve_mode(cfg: TrackerConfig) -> str:
    """`auto` made definite: WANDB_MODE when set, else online exactly when there is an API key."""
    if cfg.mode != "auto":
        return cfg.mode
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def has_key() -> bool:
    """Whether somebody is logged in to W&B here, as W&B itself sees it; nobody is asked."""
    import wandb

    try:
        # By itself it prints where it looks, and looks nowhere where it's to be offline.
        wandb.setup(wandb.Settings(silent=True, mode="online"))
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.Error:
        return True  # There is a key; what is wrong with it is said when it's used.


LINES = "wandb/lineseries/v0"
"""W&B's own chart of several lines."""


def _table(frame: pd.DataFrame) -> Any:
    import wandb

    columns = [_column(frame.iloc[:MAX_TABLE_ROWS, at]) for at in range(frame.shape[1])]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return wandb.Table(columns=[shown(str(name)) for name in frame.columns], data=rows)


def _column(values: Iterable[Any]) -> list[Any]:
    """Cells of a column, of the one kind that W&B takes: words among numbers make all words."""
    cells = [_cell(value) for value in values]
    kinds = {float if type(cell) is int else type(cell) for cell in cells if cell is not None}
    if len(kinds) < 2:
        return cells
    return [cell if cell is None or isinstance(cell, str) else f"{cell}" for cell in cells]


def _artifact(one: Upload) -> Any:
    import wandb

    made = wandb.Artifact(one.name, one.kind, metadata={"fingerprint": one.fingerprint})
    with made.new_file(MANIFEST) as file:
        file.write(one.content)
    for name, path in one.files.items():
        made.add_file(str(path), name=name)
    return made


def _use(run: Any, artifact: Any) -> None:
    """Say that the run read an artifact, which is known by its content.

    Offline, W&B's `use_artifact` refuses; what it does with an artifact that isn't there yet, to
    send it and then use it, is written down all the same, and `wandb sync` carries it out.
    """
    if run.settings._offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _readable(content: Any) -> Any:
    """`content` of JSON's types, its texts fit to be looked at."""
    if isinstance(content, Mapping):
        return {shown(str(name)): _readable(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_readable(value) for value in content]
    return shown(content, _MAX_CELL) if isinstance(content, str) else content


def _cell(value: Any) -> Any:
    """`value` as W&B can store it: a number, a string, or none."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is pd.NA or value is pd.NaT:
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return shown(str(value), _MAX_CELL)
