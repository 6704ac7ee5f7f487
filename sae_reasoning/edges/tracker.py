"""Where results are logged beside the files: Weights & Biases, or nowhere.

The files of a stage are the result; tracking shows them. So no failure of the tracker ends a stage:
the first one is a warning, and from then on the run is silent. Offline when no API key is set
(`wandb sync` uploads it later), online when one is. What W&B records by default about the machine
(host name, script path, requirements, code) stays off.

Texts of models and data are logged as plain strings, which W&B shows escaped; never as HTML.
"""

import logging
import math
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import pandas as pd

from sae_reasoning.config import TrackerConfig

_log = logging.getLogger(__name__)

MAX_TABLE_ROWS = 10_000
"""Rows at which W&B cuts a table of its own accord."""


@runtime_checkable
class Tracker(Protocol):
    """Receives what a stage found."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log points of curves; `step` is the x axis and may start anew for another curve."""

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Log a small table, the best rows first."""

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

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Drop the table."""

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
        """Log points of curves; `step` is the x axis and may start anew for another curve."""
        values = {name: float(value) for name, value in metrics.items()}
        if step is not None:
            # An ordinary metric: W&B's own step drops whatever comes with a lower one, as the
            # second layer's curve would.
            values["step"] = step
        self._safely(lambda run: run.log(values))

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Log a small table, the best rows first; rows past W&B's limit are left out."""

        def send(run: Any) -> None:
            import wandb

            rows = [[_cell(value) for value in row] for row in frame.head(MAX_TABLE_ROWS).values]
            run.log({name: wandb.Table(columns=list(map(str, frame.columns)), data=rows)})

        self._safely(send)

    def figure(self, name: str, path: Path) -> None:
        """Log a picture from a file."""

        def send(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path))})

        self._safely(send)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Log single values that sum the stage up."""
        plain = {name: _cell(value) for name, value in values.items()}
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
            reason = str(error).strip().split("\n")[0] or type(error).__name__
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
            group=self._group,
            job_type=self._stage,
            name=f"{self._group}/{self._stage}",
            dir=str(self._folder),
            mode=mode,
            config=self._config,
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
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        entries = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError, RuntimeError):
        return False
    return entries.authenticators(urlsplit(url).netloc) is not None


def _cell(value: Any) -> Any:
    """`value` as W&B can store it: a number, a string, or none."""
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
