"""The pages of shortlisted latents: one table, and a file of evidence for each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.pages import (
    plain,
    rendered,
    write_call,
    write_lines,
    write_page,
    write_rows,
)
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.uploads import may_show_texts
from sae_reasoning.jobs.report.evidence import Texts
from sae_reasoning.jobs.report.sources import Sources
from sae_reasoning.records import MODELS
from sae_reasoning.report import neuronpedia
from sae_reasoning.report.edits import Edits
from sae_reasoning.report.latents import LatentRecord, listing_rows, records, top_rows
from sae_reasoning.report.reviews import CALLS, Review
from sae_reasoning.steering.findings import dose_curves

_NUM_CELL_EXAMPLES = 3


@dataclass(frozen=True)
class Written:
    """What there is about latents.

    Attributes:
        num_latents: That have a page.
        top: The best of each list, as rows of the table.
        cells: HTML of evidence of each of these rows.
    """

    num_latents: int
    top: pd.DataFrame
    cells: tuple[str, ...]


def write_latents(
    cfg: Config, sources: Sources, reviews: Sequence[Review], folder: Path, console: Console
) -> Written:
    """Write `latents.html`, a script of evidence a latent below `latents/`, and their rows.

    Texts, directions and output tokens need what `rank` was made from; where its traces, cache or
    SAEs are gone, a latent has its figures only. What edits did needs `ablate`.
    """
    if not sources.has("rank"):
        return Written(0, pd.DataFrame(), ())
    shortlist = read_json(sources.folder / "rank" / "shortlist.json")
    found = _records(sources, shortlist)
    missing = " ".join(v for k, v in sources.missing.items() if k in ("traces", "cache", "train"))
    rows = listing_rows(found)
    _add_reviews(rows, reviews)
    top = top_rows(rows, cfg.tracker.latents)
    kept: dict[str, dict[str, Any]] = {row["name"]: {} for row in top}
    exported = _Exported(cfg, folder) if cfg.report.neuronpedia else None
    with console.progress(len(found), "latents", "pages") as bar:
        for one, evidence in zip(found, _evidence(cfg, sources, found, shortlist), strict=True):
            record = plain(asdict(one) | {"name": one.name} | evidence)
            write_call(folder / "latents" / f"{one.name}.js", "showLatent", record)
            if one.name in kept:
                kept[one.name] = record
            if exported and "examples" in evidence:
                exported.add(plain(asdict(one)), evidence)
            bar.advance(1)
    if exported:
        exported.write()
    write_rows(folder / "rows" / "latents.csv", _as_rows(rows))
    page = {
        "title": f"{cfg.pair.name}: latents",
        "pair": cfg.pair.name,
        "has_latents": True,
        "num_latents": len(found),
        "rank": sources.manifests["rank"].fingerprint,
        "rows": plain(rows),
        "missing": missing,
        "ablate_missing": sources.missing.get("ablate", ""),
        "match_missing": sources.missing.get("match", ""),
        "match_other": _other_run(sources),
    }
    write_page(folder / "latents.html", "latents.html", page)
    has_texts = may_show_texts(cfg)
    cells = tuple(cell(row, kept[row["name"]], has_texts) for row in plain(top))
    return Written(len(found), _as_rows(top), cells)


def cell(row: Mapping[str, Any], record: Mapping[str, Any], has_texts: bool) -> str:
    """Evidence of one row as a small page of its own, for tables elsewhere.

    Args:
        row: Of the table of latents.
        record: What is known of the latent.
        has_texts: Whether texts and tokens may stand in it.
    """
    examples = record.get("examples", ()) if has_texts else ()
    highest = max(record["histogram"]["edges"]) if "histogram" in record else 1.0
    return rendered(
        "latent_cell.html",
        {
            "row": row,
            "attacks": [
                a
                for a in record["attacks"]
                if (a["shortlist"], a["behaviour"]) == (row["shortlist"], row["behaviour"])
            ],
            "sets": [s for s in record.get("sets", ()) if s["behaviour"] == row["behaviour"]],
            "examples": examples[:_NUM_CELL_EXAMPLES],
            "output": record.get("output") if has_texts else None,
            "highest": highest or 1.0,
        },
    )


def _records(sources: Sources, shortlist: dict[str, Any]) -> list[LatentRecord]:
    rank = sources.folder / "rank"
    tables = {
        name: read_table(rank / f"{name}.parquet")
        for name in ("scores", "latents", "attacks", "injections", "beaten", "replicas")
    }
    matches = (
        read_table(sources.folder / "match" / "matches.parquet") if sources.has("match") else None
    )
    return records(shortlist, tables, matches)


def _evidence(
    cfg: Config, sources: Sources, found: Sequence[LatentRecord], shortlist: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Of each latent, what its record doesn't hold."""
    texts: Iterator[dict[str, Any]] = iter([{}] * len(found))
    if sources.has("traces", "cache", "train"):
        texts = Texts(cfg, sources, found, shortlist).of_each()
    edits = None
    if sources.has("ablate"):
        tables = [
            read_table(cfg.place("ablate") / f"{name}.parquet")
            for name in ("effects", "doses", "generations")
        ]
        edits = Edits(tables[0], dose_curves(tables[1]), tables[2], cfg.ablate.seed)
    for one, evidence in zip(found, texts, strict=True):
        yield evidence | (edits.of(f"{one.layer}:{one.latent}") if edits else {})


def _add_reviews(rows: list[dict[str, Any]], reviews: Sequence[Review]) -> None:
    """Who called each row what, and, as that names people, how many called it so."""
    for row in rows:
        key = row["layer"], row["latent"], row["behaviour"]
        calls = [(one.reviewer, one.calls[key]) for one in reviews if key in one.calls]
        row["reviewers"] = "; ".join(f"{name}: {call}" for name, call in calls)
        counts = Counter(call for _, call in calls)
        row["reviews"] = ", ".join(f"{counts[call]} {call}" for call in CALLS if counts[call])


def _as_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Listings as a table, without reviewers' names: what each is called, a column a reader."""
    return pd.DataFrame(
        [
            {k: v for k, v in row.items() if k not in ("called", "reviewers")}
            | {f"called_by_{reader}": row["called"].get(reader, "") for reader in MODELS}
            for row in rows
        ]
    )


def _other_run(sources: Sources) -> str:
    """The run in which counterparts were looked for, or ""."""
    return str(sources.manifests["match"].config["match"]["other"]) if sources.has("match") else ""


class _Exported:
    """Features for Neuronpedia, gathered by dictionary and written at the end."""

    def __init__(self, cfg: Config, folder: Path) -> None:
        self._pair = cfg.pair.name
        self._models = {r: Path(getattr(cfg.pair, r).path).name for r in MODELS}
        self._folder = folder / "neuronpedia"
        self._found: dict[tuple[int, str], list[tuple[dict[str, Any], dict[str, Any]]]] = {}

    def add(self, record: dict[str, Any], evidence: dict[str, Any]) -> None:
        """Take one latent."""
        self._found.setdefault((record["layer"], record["dictionary"]), []).append(
            (record, evidence)
        )

    def write(self) -> None:
        """A folder a model, in it one a dictionary."""
        for (layer, dictionary), found in self._found.items():
            for reader, model in self._models.items():
                place = self._folder / model / neuronpedia.source_id(layer, dictionary)
                features = [neuronpedia.feature(model, reader, *one) for one in found]
                rows = [a for one in found for a in neuronpedia.activations(model, reader, *one)]
                write_lines(place / "features" / "batch-0.jsonl.gz", features)
                write_lines(place / "activations" / "batch-0.jsonl.gz", rows)
                about = neuronpedia.about(self._models, self._pair, layer, dictionary, reader)
                for name, line in about.items():
                    write_lines(place / f"{name}.jsonl.gz", [line])
