"""Join what `ablate` found of one pair's latents in another's models into a matrix."""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, MissingInput, Stage, require_stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.plots import plot_transfer
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.steering.findings import shown
from sae_reasoning.steering.transfer import cells, join, matrix

_SHOWN = [
    *(
        "edit",
        "behaviour",
        "source",
        "target",
        "set_size",
        "num_shared",
        "likeness",
        "n",
        "without",
        "value",
    ),
    *("difference", "permuted", "beyond_permuted", "beyond_permuted_q", "own", "validity"),
    *("others_valid", "coherent", "carries_over"),
]


def transfer(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `transfer.parquet` and `transfer.png`, beside the pairs' folders."""
    edited = _edited(cfg)
    made_from = {str(one): one.manifest.fingerprint for one in edited}
    with Stage(cfg.place("transfer"), cfg.settings("transfer"), made_from) as stage:
        if done := console.up_to_date(stage):
            return done
        console.plan("transfer", {str(one): one.folder for one in edited})
        table = join([one.cells() for one in edited])
        write_table(stage.folder / "transfer.parquet", table)
        plot_transfer(table, stage.folder / "transfer.png")
        manifest = stage.finish({"cells": len(table), "pairs": table.target.nunique()})
    tracker.table("transfer", table)
    tracker.figure("transfer", stage.final / "transfer.png")
    people = matrix(table)
    title = "starts per opportunity: change by latents found elsewhere (null); * carries over"
    console.table(title, list(people.columns), people.values.tolist(), at_most=12)
    across = table[table.source != table.target]
    console.detail("each cell, with its null and the target's own", _SHOWN, shown(across, _SHOWN))
    console.wrote(stage.final, manifest)
    return manifest


@dataclass(frozen=True)
class _Edited:
    """One target, edited through the matched latents of one source's latents."""

    source: str
    target: str
    folder: Path
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.source} in {self.target}"

    def cells(self) -> pd.DataFrame:
        return cells(
            read_table(self.folder / "effects.parquet"),
            read_table(self.folder / "matched_latents.parquet"),
            source=self.source,
            target=self.target,
        )


def _edited(cfg: Config) -> list[_Edited]:
    """All that is asked for, or all there is.

    Raises:
        MissingInput: A pair hasn't been edited through another, or on other inputs.
        ConfigError: They weren't edited with the same options.
    """
    root = Path(cfg.runs) / cfg.experiment
    prefix = f"ablate_from_{cfg.experiment}_"
    found = []
    for source, target in permutations(cfg.transfer.pairs or _pairs(root, prefix), 2):
        folder = root / target / f"{prefix}{source}"
        made = Manifest.read(folder)
        if made is not None:
            if made.config.get("version") != cfg.settings("ablate")["version"]:
                said = f"{folder} was made by another version of ablate"
                raise MissingInput(f"{said}; {_remedy(cfg, source, target)}")
            made = require_stage(root / target, folder.name, made.config, {})
            found.append(_Edited(source, target, folder, made))
        elif cfg.transfer.pairs:
            raise MissingInput(f"{folder} is missing; {_remedy(cfg, source, target)}")
    if not found:
        raise MissingInput(
            f"{root} holds no pair that was edited through another's latents; "
            + _remedy(cfg, "organism_deployed_llama", "organism_deployed_neox")
        )
    for one in found:
        if _options(one) != _options(found[0]):
            raise ConfigError(
                f"transfer.pairs: {one.folder} and {found[0].folder} were made with different "
                "options; run `make ablate` for both with the same ARGS first"
            )
    return found


def _remedy(cfg: Config, source: str, target: str) -> str:
    return (
        f'run `make match ARGS="pair={source} match.other={cfg.experiment}/{target}"` and '
        f'`make ablate ARGS="pair={target} ablate.matches_of={cfg.experiment}/{source}"` first'
    )


def _pairs(root: Path, prefix: str) -> list[str]:
    """Pairs of the experiment that were edited through another, and those others."""
    edited = sorted(root.glob(f"*/{prefix}*/manifest.json"))
    names = [(path.parent.name.removeprefix(prefix), path.parent.parent.name) for path in edited]
    return sorted({name for both in names for name in both})


def _options(one: _Edited) -> dict[str, object]:
    return {
        name: value for name, value in one.manifest.config["ablate"].items() if name != "matches_of"
    }
