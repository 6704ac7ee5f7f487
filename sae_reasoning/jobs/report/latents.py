"""The pages of shortlisted latents: one table, and a file of evidence for each."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_reasoning.config import Config
from sae_reasoning.contrast.measures import MODELS
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.artifacts import read_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.load import LanguageModel, encode_response, load, resolve_device
from sae_reasoning.edges.lm.unembed import output_logits
from sae_reasoning.edges.pages import plain, write_call, write_page, write_rows
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.tables import read_table, read_traces
from sae_reasoning.jobs.report.sources import Sources
from sae_reasoning.records import Trace
from sae_reasoning.report.examples import (
    Example,
    Firing,
    choose,
    example,
    histogram,
    token_pieces,
)
from sae_reasoning.report.latents import LatentRecord, listing_rows, records
from sae_reasoning.report.reviews import Review
from sae_reasoning.report.texts import MAX_PIECE, shown

_BATCH_ROWS = 8192
_NUM_TOKENS, _NUM_NEIGHBOURS = 10, 6


def write_latents(
    cfg: Config, sources: Sources, reviews: Sequence[Review], folder: Path, console: Console
) -> int:
    """Write `latents.html`, a script of evidence a latent below `latents/`, and their rows.

    Texts, directions and output tokens need what `rank` was made from; where its traces, cache or
    SAEs are gone, a latent has its figures only.

    Returns:
        Latents that have a page; 0 where `rank` isn't there.
    """
    if not sources.has("rank"):
        return 0
    rank = sources.folder / "rank"
    shortlist = read_json(rank / "shortlist.json")
    tables = {
        name: read_table(rank / f"{name}.parquet")
        for name in ("scores", "latents", "attacks", "injections")
    }
    matches = (
        read_table(sources.folder / "match" / "matches.parquet") if sources.has("match") else None
    )
    found = records(shortlist, tables, matches)
    missing = " ".join(v for k, v in sources.missing.items() if k in ("traces", "cache", "train"))
    if sources.has("traces", "cache", "train"):
        shown_in = _Texts(cfg, sources, found, shortlist)
        evidence = shown_in.of_each()
    else:
        evidence = iter([{}] * len(found))
    with console.progress(len(found), "latents", "pages") as bar:
        for one, more in zip(found, evidence, strict=True):
            path = folder / "latents" / f"{one.name}.js"
            write_call(path, "showLatent", plain(asdict(one) | {"name": one.name} | more))
            bar.advance(1)
    rows = listing_rows(found)
    for row in rows:
        key = row["layer"], row["latent"], row["behaviour"]
        said = [f"{one.reviewer}: {one.calls[key]}" for one in reviews if key in one.calls]
        row["reviews"] = "; ".join(said)
    write_rows(folder / "rows" / "latents.csv", _as_rows(rows))
    page = {
        "title": f"{cfg.pair.name}: latents",
        "pair": cfg.pair.name,
        "has_latents": True,
        "num_latents": len(found),
        "rank": sources.manifests["rank"].fingerprint,
        "rows": plain(rows),
        "missing": missing,
        "match_missing": sources.missing.get("match", ""),
    }
    write_page(folder / "latents.html", "latents.html", page)
    return len(found)


def _as_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Listings as a table: what each is called stands in a column a reader."""
    return pd.DataFrame(
        [
            {k: v for k, v in row.items() if k != "called"}
            | {f"called_by_{reader}": row["called"].get(reader, "") for reader in MODELS}
            for row in rows
        ]
    )


class _Texts:
    """Where the latents fire, and what their directions say."""

    def __init__(
        self,
        cfg: Config,
        sources: Sources,
        found: Sequence[LatentRecord],
        shortlist: dict[str, Any],
    ) -> None:
        self.cfg, self.found = cfg, found
        self.traces = read_traces(sources.folder / "traces" / "traces.parquet")
        self.lm: LanguageModel = load(cfg.pair.rl, cfg.device)
        layers = sorted({one.layer for one in found})
        device = resolve_device(cfg.device)
        self.dictionaries = load_ranked(sources.folder, shortlist, layers, device)
        self.stores = {
            (reader, layer): ActivationStore.open(
                sources.folder / "cache" / reader / f"layer_{layer}"
            )
            for reader in MODELS
            for layer in layers
        }
        check_same_rows(*self.stores.values())
        self.index = next(iter(self.stores.values()))
        is_report = np.array([trace.split == "report" for trace in self.traces])
        self.is_reported = is_report[self.index.trace_index]
        self.pieces = lru_cache(maxsize=None)(self._pieces)

    def of_each(self) -> Iterator[dict[str, Any]]:
        """Evidence of each latent, in their order, which is by layer."""
        firing: dict[tuple[str, int], Firing] = {}
        layer = None
        for one in self.found:
            if one.layer != layer:
                layer = one.layer
                own = [other.latent for other in self.found if other.layer == layer]
                firing = {
                    (reader, latent): found
                    for reader in MODELS
                    for latent, found in self._fire(reader, layer, own).items()
                }
            yield self._evidence(one, {r: firing[r, one.latent] for r in MODELS})

    def _fire(self, reader: str, layer: int, latents: Sequence[int]) -> dict[int, Firing]:
        """Where some latents are active on the report split."""
        dictionary = self.dictionaries[layer]
        slot = np.full(dictionary.d_sae, -1, np.int64)
        slot[list(latents)] = np.arange(len(latents))
        rows, slots, values, first = [], [], [], 0
        for batch in self.stores[reader, layer].batches(None, _BATCH_ROWS):
            sparse = dictionary.encode_sparse(batch.activations.to(dictionary.device))
            value, latent = sparse.numpy()
            here = (value > 0) & (slot[latent] >= 0)
            here &= self.is_reported[first : first + len(value), None]
            place, _ = np.nonzero(here)
            rows.append(place + first)
            slots.append(slot[latent[here]])
            values.append(value[here])
            first += len(value)
        row, which, value = (np.concatenate(parts) for parts in (rows, slots, values))
        order = np.argsort(which, kind="stable")  # Rows ascend within a latent.
        bounds = np.searchsorted(which[order], np.arange(len(latents) + 1))
        return {
            latent: Firing(row[order[a:b]], value[order[a:b]])
            for latent, a, b in zip(latents, bounds, bounds[1:], strict=False)
        }

    def _evidence(self, one: LatentRecord, firing: dict[str, Firing]) -> dict[str, Any]:
        chosen = choose(firing["rl"], self._problem_of_row, seed=one.layer * 1_000_003 + one.latent)
        return {
            "histogram": asdict(histogram(firing, int(self.is_reported.sum()))),
            "examples": [asdict(self._example(band, row, firing)) for band, row in chosen],
            "output": self._output(self.dictionaries[one.layer], one.latent),
            "neighbours": self._neighbours(one),
        }

    def _problem_of_row(self, row: int) -> str:
        return self.traces[int(self.index.trace_index[row])].problem_id

    def _example(self, band: str, row: int, firing: dict[str, Firing]) -> Example:
        number = int(self.index.trace_index[row])
        rows = self.index.row_of_trace[number : number + 2]
        first = int(self.index.position[rows[0]])
        near = {}
        for reader, own in firing.items():
            a, b = np.searchsorted(own.row, rows)
            places = self.index.position[own.row[a:b]].tolist()
            near[reader] = dict(zip(places, own.value[a:b].tolist(), strict=True))
        position = int(self.index.position[row])
        return example(band, self.traces[number], self.pieces(number), position, first, near)

    def _pieces(self, number: int) -> list[str]:
        """Text of each token of a trace."""
        trace: Trace = self.traces[number]
        tokens = trace.token_ids
        ids, offsets = encode_response(self.lm.tokenizer, trace.text)
        start = trace.num_prompt_tokens
        stop = start + len(ids)
        if list(tokens[start:stop]) != list(ids) or not ids:  # Written otherwise than it's read.
            return [self._says(token) for token in tokens]
        return [
            *map(self._says, tokens[:start]),
            *token_pieces(trace.text, [end for _, end in offsets]),
            *map(self._says, tokens[stop:]),
        ]

    def _says(self, token: int) -> str:
        return str(self.lm.tokenizer.decode([token]))

    def _output(self, dictionary: Dictionary, latent: int) -> dict[str, list[tuple[str, float]]]:
        """Output tokens that the latent's direction makes likelier, and those it makes rarer."""
        (logits,) = output_logits(self.lm, dictionary.W_dec[[latent]])
        count = min(_NUM_TOKENS, len(logits) // 2)

        def named(best: torch.return_types.topk) -> list[tuple[str, float]]:
            return [
                (shown(self._says(token), MAX_PIECE), float(f"{value:.3g}"))
                for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]

        return {
            "top": named(logits.topk(count)),
            "bottom": named(logits.topk(count, largest=False)),
        }

    def _neighbours(self, one: LatentRecord) -> list[dict[str, Any]]:
        """Latents of the same dictionary whose directions are nearest."""
        listed = {(other.layer, other.latent) for other in self.found}
        directions = self.dictionaries[one.layer].W_dec
        cosines = directions @ directions[one.latent]
        cosines[one.latent] = -2.0
        best = cosines.topk(min(_NUM_NEIGHBOURS, len(cosines) - 1))
        return [
            {
                "latent": latent,
                "cosine": float(f"{cosine:.3f}"),
                "name": f"{one.layer}_{latent}" if (one.layer, latent) in listed else "",
            }
            for cosine, latent in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
