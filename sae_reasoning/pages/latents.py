"""The pages of shortlisted latents: one table, and a file of evidence for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.pages import (
    plain,
    rendered,
    write_call,
    write_lines,
    write_page,
    write_rows,
)
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_table
from sae_reasoning.edges.uploads import may_show_texts
from sae_reasoning.pages.evidence import evidence_of_each
from sae_reasoning.pages.sources import Sources
from sae_reasoning.records import Shortlist
from sae_reasoning.report import neuronpedia
from sae_reasoning.report.edits import Edits
from sae_reasoning.report.latents import (
    LatentRecord,
    add_reviews,
    cell_content,
    listing_rows,
    listing_table,
    records,
    top_rows,
)
from sae_reasoning.report.reviews import Review
from sae_reasoning.steering.findings import dose_curves

_TABLES = ("scores", "latents", "attacks", "injections", "baseline_comparison", "replicas")


@dataclass(frozen=True)
class Written:
    """The latents of a report.

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

    Texts, directions and output tokens need the traces, cache and SAEs that `rank` was made from;
    without them a latent has its figures only. Effects of edits need `ablate`.
    """
    if not sources.has("rank"):
        return Written(0, pd.DataFrame(), ())
    rank = sources.folder / "rank"
    shortlist = read_shortlist(rank)
    matches = (
        read_table(sources.folder / "match" / "matches.parquet") if sources.has("match") else None
    )
    found = records(shortlist, {n: read_table(rank / f"{n}.parquet") for n in _TABLES}, matches)
    rows = listing_rows(found)
    add_reviews(rows, reviews)
    top = top_rows(rows, cfg.tracker.latents)
    kept: dict[str, dict[str, Any]] = {row["name"]: {} for row in top}
    exported: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with console.progress(len(found), "latents", "pages") as bar:
        for one, evidence in zip(found, _evidence(cfg, sources, found, shortlist), strict=True):
            record = plain(asdict(one) | {"name": one.name} | evidence)
            write_call(folder / "latents" / f"{one.name}.js", "showLatent", record)
            if one.name in kept:
                kept[one.name] = record
            if cfg.report.neuronpedia and "examples" in evidence:
                exported.append((plain(asdict(one)), evidence))
            bar.advance(1)
    models = {reader: Path(model.path).name for reader, model in cfg.pair.readers.items()}
    for name, lines in neuronpedia.export(models, cfg.pair.name, exported).items():
        write_lines(folder / "neuronpedia" / f"{name}.jsonl.gz", lines)
    write_rows(folder / "rows" / "latents.csv", listing_table(rows))
    write_page(folder / "latents.html", "latents.html", _page(cfg, sources, rows, len(found)))
    has_texts = may_show_texts(cfg)
    cells = tuple(cell(row, kept[row["name"]], has_texts) for row in plain(top))
    return Written(len(found), listing_table(top), cells)


def cell(row: Mapping[str, Any], record: Mapping[str, Any], has_texts: bool) -> str:
    """Evidence of one row as a small page of its own, for tables elsewhere."""
    return rendered("latent_cell.html", cell_content(row, record, has_texts))


def _page(
    cfg: Config, sources: Sources, rows: list[dict[str, Any]], num_latents: int
) -> dict[str, Any]:
    missing, manifests = sources.missing, sources.manifests
    return {
        "title": f"{cfg.pair.name}: latents",
        "pair": cfg.pair.name,
        "has_latents": True,
        "num_latents": num_latents,
        "rank": manifests["rank"].fingerprint,
        "rows": plain(rows),
        "missing": " ".join(missing[k] for k in ("traces", "cache", "train") if k in missing),
        "ablate_missing": missing.get("ablate", ""),
        "match_missing": missing.get("match", ""),
        "match_other": str(manifests["match"].config["match"]["other"])
        if sources.has("match")
        else "",
    }


def _evidence(
    cfg: Config, sources: Sources, found: Sequence[LatentRecord], shortlist: Shortlist
) -> Iterator[dict[str, Any]]:
    """Texts and effects of edits of each latent, as far as there are any."""
    texts: Iterator[dict[str, Any]] = iter([{}] * len(found))
    if sources.has("traces", "cache", "train"):
        texts = evidence_of_each(cfg, sources, found, shortlist)
    edits = None
    if sources.has("ablate"):
        effects, doses, generations = (
            read_table(cfg.place("ablate") / f"{name}.parquet")
            for name in ("effects", "doses", "generations")
        )
        edits = Edits(effects, dose_curves(doses), generations, cfg.ablate.seed)
    for one, evidence in zip(found, texts, strict=True):
        yield evidence | (edits.of(f"{one.layer}:{one.latent}") if edits else {})
