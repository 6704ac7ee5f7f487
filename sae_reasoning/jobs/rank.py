"""Score every latent for every behaviour, hold it against baselines, and draw up the shortlists."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sae_reasoning.behaviours.announce import attribute, draw_onsets
from sae_reasoning.behaviours.attacks import Bars, attack_all, toll
from sae_reasoning.behaviours.baselines import (
    NGRAM,
    PROBE,
    RANDOM_DIRECTION,
    RANDOM_READER,
    BaselineScore,
    IntervalActivations,
    NgramScorer,
    best_latent,
    random_directions,
    score_baseline,
    some_with_moves,
)
from sae_reasoning.behaviours.scores import Labels, LatentScores, label_rows
from sae_reasoning.behaviours.shortlist import (
    MaximaOf,
    Shortlist,
    add_intervals,
    draw_up,
    findings,
    mark_candidates,
    shortlist_content,
)
from sae_reasoning.behaviours.streams import Active, MaximaStream, SparseMaxima
from sae_reasoning.behaviours.windows import NO_SPANS, Rows, response_rows, span_intervals
from sae_reasoning.behaviours.wordings import hold_out
from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.activation_store import ActivationStore, check_same_rows
from sae_reasoning.edges.artifacts import (
    Manifest,
    Stage,
    publish,
    require_stage,
    write_json,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.attribute import onset_gradients
from sae_reasoning.edges.lm.load import (
    describe,
    load,
    random_twin,
    resolve_device,
)
from sae_reasoning.edges.lm.read import residuals_in_memory
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_trained
from sae_reasoning.edges.sae_training import train_sae
from sae_reasoning.edges.tables import read_table, read_traces, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.records import Trace

READERS = ("base", "rl")

_BATCH = 8192
_RANDOM_READER_TRACES = 150
"""Traces with moves, per writer and split, that the randomly initialised reader reads."""
_ORDER = [
    "dictionary",
    "layer",
    "latent",
    "behaviour",
    "reader",
    "writer",
    "split",
    "status",
    "n_pos",
    "n_neg",
    "num_problems",
    "span_auroc",
    "span_auroc_low",
    "span_auroc_high",
    "token_auroc",
    "onset_auroc",
    "onset_matched_share",
    "n_taken",
    "n_untaken",
    "point_biserial",
    "mutual_information",
    "mutual_information_null",
    "reason_score",
    "rate_in",
    "rate_out",
    "rate_at_opportunities",
    "onset_attribution",
    "is_candidate",
    "p",
    "q",
]


def rank(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `rank/`: scores, latents, baselines, shortlist."""
    inputs = {reader: describe(getattr(cfg.pair, reader)).fingerprint for reader in READERS}
    inputs |= {
        name: require_stage(cfg.folder, name, cfg.settings(name), inputs).fingerprint
        for name in ("traces", "cache", "train")
    }
    with Stage(cfg.folder / "rank", cfg.settings("rank"), inputs) as stage:
        if stage.is_current:
            console.current("rank", stage.final)
            assert stage.manifest
            return stage.manifest
        data = _open(cfg, inputs)
        _plan(cfg, data, stage, console)
        parts = stage.folder / "parts"
        for reader in READERS:
            _attribute(cfg, data, reader, parts, console)
            for layer in cfg.layers:
                _score(cfg, data, reader, layer, parts, console)
        _score_rivals(cfg, data, parts, console)
        scores, latents, baselines = _gather(cfg, data, parts)
        with console.progress(1, "tables", "intervals") as bar:
            scores = add_intervals(scores, _maxima(data, parts, "spans"), cfg.behaviours)
            lists = draw_up(
                scores,
                latents,
                _maxima(data, parts, "onsets"),
                cfg.behaviours,
                trackers=cfg.rank.trackers,
                announcers=cfg.rank.announcers,
                announce_by=cfg.rank.announce_by,
                bootstrap=cfg.rank.bootstrap,
                seed=cfg.rank.seed,
            )
            bar.advance()
        write_table(stage.folder / "scores.parquet", scores[_ORDER])
        write_table(stage.folder / "latents.parquet", latents)
        write_table(stage.folder / "baselines.parquet", baselines)
        attacks = _attack(cfg, lists, data, parts)
        write_table(stage.folder / "attacks.parquet", attacks)
        content = shortlist_content(lists, data.known(cfg), attacks, data.labels.wordings)
        write_json(stage.folder / "shortlist.json", content)
        shutil.rmtree(parts)
        found = findings(scores, baselines, lists, cfg.behaviours)
        manifest = stage.finish(
            {
                "scores": len(scores),
                "candidates": int(scores.is_candidate.sum()),
                "tokens": len(data.rows.token_id),
                "spans": int(data.labels.spans.is_positive.sum()),
            }
        )
    tracker.table("findings", found)
    tracker.table("top latents", _top(scores))
    tracker.summary(manifest.counts)
    console.table(_title(baselines), list(found), found.values.tolist())
    killed = toll(attacks)
    tracker.table("attacks", killed)
    console.table("what is left of the trackers", list(killed), killed.values.tolist())
    console.wrote(stage.final, manifest)
    console.next("make ablate")
    return manifest


@dataclass(frozen=True)
class _Data:
    """Everything that is read, checked to belong together; traces as selection may see them."""

    traces: list[Trace]
    rows: Rows
    labels: Labels
    stores: dict[tuple[str, int], ActivationStore]
    dictionaries: dict[int, Dictionary]

    def known(self, cfg: Config) -> dict[str, dict[str, str]]:
        """The dictionaries as the shortlist names them."""
        return {
            d.name: {
                "folder": f"train/{cfg.train.readers}/layer_{layer}",
                "fingerprint": d.fingerprint,
            }
            for layer, d in self.dictionaries.items()
        }


def _open(cfg: Config, inputs: dict[str, str]) -> _Data:
    """Open traces, stores and dictionaries; refuse what doesn't belong together."""
    traces = read_traces(cfg.folder / "traces" / "traces.parquet")
    if not any(span.behaviour in cfg.behaviours for trace in traces for span in trace.spans):
        raise ConfigError(
            f"behaviours={cfg.behaviours} have no span in {len(traces)} traces; annotate other "
            "behaviours, or raise traces.num_problems"
        )
    stores, dictionaries = {}, {}
    for layer in cfg.layers:
        for reader in READERS:
            expected = {
                "traces_fingerprint": inputs["traces"],
                "model_fingerprint": inputs[reader],
                "layer": layer,
            }
            folder = cfg.folder / "cache" / reader / f"layer_{layer}"
            stores[reader, layer] = ActivationStore.open(folder, expected)
        folder = cfg.folder / "train" / cfg.train.readers / f"layer_{layer}"
        d_model = stores["rl", layer].d_model
        dictionaries[layer] = load_trained(folder, layer, d_model, resolve_device(cfg.device))
    first, *others = stores.values()
    check_same_rows(first, *others)
    rows = Rows.cached(first.token_id, first.row_of_trace, first.position)
    labels = label_rows(traces, rows, cfg.behaviours, cfg.rank.seed)
    return _Data(hold_out(traces, labels.wordings), rows, labels, stores, dictionaries)


def _plan(cfg: Config, data: _Data, stage: Stage, console: Console) -> None:
    spans = data.labels.spans
    console.plan(
        "rank",
        {
            "activations": f"{len(data.rows.token_id):,} tokens, readers {', '.join(READERS)}, "
            f"layers {', '.join(map(str, cfg.layers))}",
            "latents": ", ".join(f"{d.name}: {d.d_sae}" for d in data.dictionaries.values()),
            "spans": f"{int(spans.is_positive.sum()):,} with "
            f"{int((~spans.is_positive).sum()):,} windows, of {len(cfg.behaviours)} behaviours",
            "onsets": f"{len(data.labels.onsets.start):,} opportunities",
            "held out of selection": "; ".join(
                f"{behaviour}: {', '.join(words) or 'no wording'}"
                for behaviour, words in data.labels.wordings.items()
            ),
            "resuming": "yes" if stage.is_resuming else "no",
        },
    )
    for (behaviour, writer), status in data.labels.status.items():
        if status == NO_SPANS:
            console.warn(f"{behaviour}: too few spans by {writer} for both splits; skipped there")


def _attribute(cfg: Config, data: _Data, reader: str, parts: Path, console: Console) -> None:
    """Mean attribution of the onset logit to every latent of every layer, in one reader."""
    path = parts / f"{reader}_attribution.parquet"
    if path.exists():
        return
    onsets = [
        onset
        for onset in draw_onsets(
            data.traces, cfg.behaviours, cfg.rank.attribution_onsets, cfg.rank.seed
        )
        if data.labels.onset_ids[onset.behaviour]
    ]
    lm = load(getattr(cfg.pair, reader), cfg.device)
    keys = sorted({(onset.behaviour, onset.writer) for onset in onsets})
    group = torch.tensor([keys.index((onset.behaviour, onset.writer)) for onset in onsets])
    totals = {
        layer: torch.zeros(len(keys), d.d_sae, device=d.device)
        for layer, d in data.dictionaries.items()
    }
    prefixes = [onset.token_ids for onset in onsets]
    wanted = [[(first,) for first in data.labels.onset_ids[onset.behaviour]] for onset in onsets]
    # Gradients keep every block's activations, so a quarter of what a plain reading takes.
    budget = max(cfg.cache.token_budget // 4, 1)
    with console.progress(len(onsets), "onsets", f"{reader} announces") as bar:
        for found in onset_gradients(lm, prefixes, wanted, cfg.layers, budget):
            of_row = group[found.rows]
            for layer, dictionary in data.dictionaries.items():
                sparse = dictionary.encode_sparse(found.residuals[layer])
                for key in of_row.unique().tolist():
                    here = (of_row == key).to(sparse.values.device)
                    totals[layer][key] += attribute(
                        sparse.values[here],
                        sparse.latents[here],
                        found.gradients[layer][here],
                        dictionary.W_dec,
                    )
            bar.advance(len(found.rows))
    columns = ["layer", "latent", "behaviour", "writer", "onset_attribution"]
    blocks = [pd.DataFrame(columns=columns)] if not keys else []
    for layer, total in totals.items():
        for key, (behaviour, writer) in enumerate(keys):
            mean = (total[key] / (group == key).sum()).cpu().numpy()
            block = (layer, np.arange(len(mean)), behaviour, writer, mean)
            blocks.append(pd.DataFrame(dict(zip(columns, block, strict=True))))
    write_table(path, pd.concat(blocks, ignore_index=True))


def _score(
    cfg: Config, data: _Data, reader: str, layer: int, parts: Path, console: Console
) -> None:
    """One pass over one store: points, maxima, and the baselines that read activations."""
    prefix = f"{reader}_layer_{layer}"
    if (parts / f"{prefix}_points.parquet").exists():
        return
    store, dictionary = data.stores[reader, layer], data.dictionaries[layer]
    scores = LatentScores(data.labels, dictionary.d_sae)
    directions = random_directions(cfg.rank.random_directions, store.d_model, cfg.rank.seed)
    raw = IntervalActivations(data.labels.spans, directions)
    first_row = 0
    with console.progress(store.num_tokens, "tokens", f"{reader} layer {layer}") as bar:
        for batch in store.batches(None, _BATCH):
            scores.add(_active(dictionary, first_row, batch.activations))
            raw.add(first_row, batch.activations)
            first_row += len(batch.activations)
            bar.advance(len(batch.activations))
        result = scores.result()
        rivals = [
            asdict(row)
            for name, scorer in ((RANDOM_DIRECTION, raw.best_direction), (PROBE, raw.probe))
            for row in score_baseline(
                name,
                scorer,
                data.labels.spans,
                cfg.behaviours,
                layer=layer,
                reader=reader,
                num_traces=len(data.traces),
            )
        ]
    identity = {"dictionary": dictionary.name, "layer": layer, "reader": reader}
    maxima_of = {"spans": result.maxima, "onsets": result.onsets, "alike": result.alike}
    for kind, maxima in maxima_of.items():
        _save_maxima(parts / f"{prefix}_{kind}.npz", maxima)
    _write_baselines(parts / f"{prefix}_baselines.parquet", rivals)
    write_table(parts / f"{prefix}_latents.parquet", result.latents.assign(**identity))
    write_table(parts / f"{prefix}_points.parquet", result.points.assign(**identity))


def _score_rivals(cfg: Config, data: _Data, parts: Path, console: Console) -> None:
    """Baselines that read no trained model: the text alone, and randomly initialised weights."""
    text = parts / "text_baselines.parquet"
    if not text.exists():
        ngrams = NgramScorer(data.labels.spans, data.rows.token_id)
        scored = score_baseline(
            NGRAM,
            ngrams,
            data.labels.spans,
            cfg.behaviours,
            layer=-1,
            reader="text",
            num_traces=len(data.traces),
        )
        _write_baselines(text, [asdict(row) for row in scored])
    missing = [x for x in cfg.layers if not (parts / f"random_{x}_baselines.parquet").exists()]
    if not missing:
        return
    traces = some_with_moves(data.traces, _RANDOM_READER_TRACES, cfg.rank.seed)
    twin = random_twin(load(cfg.pair.rl, cfg.device), cfg.rank.seed)
    rows = response_rows(traces)
    residuals = residuals_in_memory(
        twin, [t.token_ids for t in traces], rows.first_position, missing, cfg.cache.token_budget
    )
    num_select = int(rows.row_of_trace[sum(trace.split == "select" for trace in traces)])
    intervals = span_intervals(traces, rows, cfg.behaviours, cfg.rank.seed)
    for layer in missing:
        with console.progress(cfg.train.steps, "steps", f"random reader layer {layer}") as bar:
            dictionary = train_sae(
                cfg.train,
                _shuffled(residuals[layer][:num_select], cfg.train.batch_size, cfg.rank.seed),
                d_in=twin.facts.d_model,
                seed=cfg.rank.seed,
                device=resolve_device(cfg.device),
            )
            bar.advance(cfg.train.steps)
        stream = MaximaStream(intervals, dictionary.d_sae)
        for start in range(0, len(residuals[layer]), _BATCH):
            part = residuals[layer][start : start + _BATCH]
            stream.add(_active(dictionary, start, part))
        scorer = best_latent(stream.result())
        scored = score_baseline(
            RANDOM_READER,
            scorer,
            intervals,
            cfg.behaviours,
            layer=layer,
            reader="random",
            num_traces=len(traces),
            steps=cfg.train.steps,
        )
        _write_baselines(
            parts / f"random_{layer}_baselines.parquet", [asdict(row) for row in scored]
        )


def _shuffled(x: torch.Tensor, size: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield x[torch.randint(len(x), (size,), generator=generator)]


def _active(dictionary: Dictionary, first_row: int, activations: torch.Tensor) -> Active:
    sparse = dictionary.encode_sparse(activations.to(dictionary.device))
    return Active.of(first_row, *sparse.numpy())


def _gather(
    cfg: Config, data: _Data, parts: Path
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All parts as three tables, candidates marked."""

    def joined(pattern: str) -> pd.DataFrame:
        return pd.concat(
            [read_table(path) for path in sorted(parts.glob(pattern))], ignore_index=True
        )

    attributions = pd.concat(
        [read_table(parts / f"{r}_attribution.parquet").assign(reader=r) for r in READERS]
    ).assign(split="select")
    keys = ["layer", "latent", "behaviour", "reader", "writer", "split"]
    scores = joined("*_points.parquet").merge(attributions, on=keys, how="left")
    scores["is_candidate"] = mark_candidates(
        scores,
        candidates=cfg.rank.candidates,
        announcers=cfg.rank.announcers,
        announce_by=cfg.rank.announce_by,
    )
    return scores, joined("*_latents.parquet"), joined("*_baselines.parquet")


def _attack(cfg: Config, lists: Shortlist, data: _Data, parts: Path) -> pd.DataFrame:
    """What is left of the trackers among spans and windows that are alike."""
    chosen: dict[tuple[str, str, int], list[int]] = {}
    for behaviour, entries in lists.trackers.items():
        for entry in entries:
            chosen.setdefault((behaviour, entry.writer, entry.layer), []).append(entry.latent)
    return attack_all(
        chosen,
        READERS,
        cfg.behaviours,
        data.labels.alike,
        _maxima(data, parts, "alike"),
        data.rows.token_id,
        Bars(cfg.rank.keep, cfg.rank.weak, cfg.rank.bootstrap, cfg.rank.seed),
    )


def _maxima(data: _Data, parts: Path, kind: str) -> MaximaOf:
    labels = data.labels
    intervals = {"spans": labels.spans, "onsets": labels.onsets, "alike": labels.alike.intervals}

    @cache
    def load_maxima(reader: str, layer: int) -> SparseMaxima:
        with np.load(parts / f"{reader}_layer_{layer}_{kind}.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("interval", "latent", "value")}
        return SparseMaxima(intervals[kind], data.dictionaries[layer].d_sae, **arrays)

    return load_maxima


def _save_maxima(path: Path, maxima: SparseMaxima) -> None:
    with publish(path) as partial, partial.open("wb") as file:
        np.savez(file, interval=maxima.interval, latent=maxima.latent, value=maxima.value)


def _write_baselines(path: Path, rows: list[dict[str, object]]) -> None:
    write_table(path, pd.DataFrame(rows, columns=list(BaselineScore.__dataclass_fields__)))


def _title(baselines: pd.DataFrame) -> str:
    """Of the findings: what they are, and what the random reader had to go on."""
    title = "findings on the report split: span AUROC"
    random = baselines[baselines.baseline == RANDOM_READER]
    if random.empty:
        return title
    first = random.iloc[0]
    return (
        f"{title} ({RANDOM_READER}: best layer, {first.steps:,} steps on {first.num_traces:,} "
        "traces with moves)"
    )


def _top(scores: pd.DataFrame) -> pd.DataFrame:
    """The candidates that a person looks at first."""
    tested = scores[scores.is_candidate & (scores.split == "report")]
    best = tested.sort_values("span_auroc", ascending=False)
    return best.groupby(["behaviour", "reader", "writer"]).head(10)[_ORDER]
