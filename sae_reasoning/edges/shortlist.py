"""`shortlist.json`: written and read here alone, as a `Shortlist`.

A figure that couldn't be computed is null in the file and NaN in the record.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sae_reasoning.edges.artifacts import BrokenArtifact
from sae_reasoning.edges.schema import read_artifact, write_artifact
from sae_reasoning.records import (
    ONSET_PREDICTORS,
    SHORTLISTS,
    SPAN_DETECTORS,
    OnsetPredictorEntry,
    RankedDictionary,
    Shortlist,
    ShortlistEntry,
)

_FILE = "shortlist.json"
_KINDS = {SPAN_DETECTORS: ShortlistEntry, ONSET_PREDICTORS: OnsetPredictorEntry}


def shortlist_path(folder: Path) -> Path:
    """The file in the folder of `rank`."""
    return folder / _FILE


def write_shortlist(folder: Path, shortlist: Shortlist) -> None:
    """Publish `shortlist.json` in the folder of `rank`."""
    lists = {
        name: {
            behaviour: [_plain(asdict(entry)) for entry in entries]
            for behaviour, entries in shortlist.entries_of(name).items()
        }
        for name in SHORTLISTS
    }
    head = {
        "dictionaries": {name: asdict(own) for name, own in shortlist.dictionaries.items()},
        "wordings_held_out": {b: list(own) for b, own in shortlist.wordings_held_out.items()},
    }
    write_artifact(shortlist_path(folder), head | lists)


def read_shortlist(folder: Path) -> Shortlist:
    """What `write_shortlist` wrote.

    Args:
        folder: Of `rank`.

    Raises:
        BrokenArtifact: The file isn't one whole shortlist.
        MissingInput: Another version made it.
    """
    path = shortlist_path(folder)
    content = read_artifact(path)
    try:
        lists = {
            name: {
                behaviour: [_entry(kind, entry) for entry in entries]
                for behaviour, entries in content[name].items()
            }
            for name, kind in _KINDS.items()
        }
        dictionaries = {
            name: RankedDictionary(**own) for name, own in content["dictionaries"].items()
        }
        return Shortlist(
            **lists, dictionaries=dictionaries, wordings_held_out=content["wordings_held_out"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BrokenArtifact(
            f"{path} holds no shortlist ({error}); delete its folder and run `make rank` again"
        ) from error


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in entry.items()
    }


def _entry(kind: type[ShortlistEntry], record: Mapping[str, Any]) -> Any:
    figures = {one.name for one in fields(kind) if one.type is float}
    own: dict[str, Any] = {
        name: float("nan") if value is None and name in figures else value
        for name, value in record.items()
    }
    return kind(**own)
