"""Both shortlists attacked in every reader, in pieces that leave their tables."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sae_reasoning.behaviours.windows import POSITIONAL
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.endpoint import Endpoint
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.workers import num_workers
from sae_reasoning.opening import open_task
from sae_reasoning.readings.data import ONSETS, Readings, saved_maxima
from sae_reasoning.readings.random_reader import RandomReader
from sae_reasoning.readings.readers import readers_under_attack
from sae_reasoning.readings.replicas import attack_with_replicas
from sae_reasoning.records import ONSET_PREDICTORS, Shortlist
from sae_reasoning.robustness.attacks import attack_onset_predictors, attack_span_detectors
from sae_reasoning.robustness.injection import Injection
from sae_reasoning.robustness.outcomes import Attack, Thresholds, add_labels
from sae_reasoning.robustness.paraphrase import attack_with_paraphrase
from sae_reasoning.robustness.readers import Reader
from sae_reasoning.robustness.replication import Replica
from sae_reasoning.robustness.word_attacks import attack_with_words
from sae_reasoning.tasks.protocol import Paraphraser


def attack_pieces(
    cfg: Config,
    readings: Readings,
    lists: Shortlist,
    random: RandomReader,
    parts: Path,
    console: Console,
) -> list[Callable[[], None]]:
    """Every attack, in pieces that leave their tables in `parts`.

    Where processes share them, models are loaded before they part, and the largest comes first;
    else one reader comes after another.
    """
    thresholds = Thresholds(cfg.rank.attacks, cfg.rank.bootstrap, cfg.rank.seed)
    is_shared = num_workers(random.lm.device, 2 * (len(cfg.pair.readers) + 1)) > 1
    readers = readers_under_attack(cfg, readings, lists, random, parts, is_shared=is_shared)
    pieces = [
        (
            partial(_by_words, cfg, reader, thresholds, parts, console),
            partial(_by_text, cfg, readings, reader, thresholds, parts, console),
        )
        for reader in readers
        if reader.targets
    ]
    if is_shared:
        for reader in readers:
            reader.model()
        pieces = list(zip(*pieces, strict=True))
    return [
        *(piece for group in pieces for piece in group),
        partial(_on_onset_predictors, cfg, readings, lists, thresholds, parts),
    ]


def gather_attacks(readings: Readings, parts: Path) -> dict[str, pd.DataFrame]:
    """Tables of what the pieces have left; attacks with each latent's label."""
    positional = {key for key, status in readings.labels.status.items() if status == POSITIONAL}
    return {
        "attacks": add_labels(_joined(parts, "attacked", Attack), positional),
        "injections": _joined(parts, "injections", Injection),
        "replicas": _joined(parts, "replicas", Replica),
    }


def _by_words(
    cfg: Config, reader: Reader, thresholds: Thresholds, parts: Path, console: Console
) -> None:
    """A reader's span detectors attacked by their own words put elsewhere."""
    path = parts / f"{reader.name}_words_attacked.parquet"
    if path.exists():
        return
    title = f"{reader.name}: words put elsewhere"
    with console.progress(len(reader.targets), "span_detectors", title) as bar:
        attacks, injections = attack_with_words(reader, cfg.rank, thresholds, bar.advance)
    write_table(parts / f"{reader.name}_injections.parquet", _frame(injections, Injection))
    write_table(path, _frame(attacks, Attack))


def _by_text(
    cfg: Config,
    readings: Readings,
    reader: Reader,
    thresholds: Thresholds,
    parts: Path,
    console: Console,
) -> None:
    """All other attacks on a reader's span detectors."""
    path = parts / f"{reader.name}_text_attacked.parquet"
    if path.exists():
        return
    attacks = [*attack_span_detectors(reader, thresholds)]
    if (paraphraser := _paraphraser(cfg)) is not None:
        with console.progress(None, "traces", f"{reader.name}: behaviours in other words") as bar:
            attacks += attack_with_paraphrase(reader, paraphraser, thresholds, bar.advance)
    if cfg.rank.replicas and reader.name in cfg.pair.readers:
        replicated, replicas = attack_with_replicas(cfg, readings, reader, parts, console)
        attacks += replicated
        write_table(parts / f"{reader.name}_replicas.parquet", _frame(replicas, Replica))
    write_table(path, _frame(attacks, Attack))


def _paraphraser(cfg: Config) -> Paraphraser | None:
    """The endpoint that was named, else templates where the task has them."""
    if cfg.rank.paraphrase_endpoint:
        return Endpoint(cfg.rank.paraphrase_endpoint, cfg.rank.paraphrase_model).reword
    return open_task(cfg).paraphraser


def _on_onset_predictors(
    cfg: Config, readings: Readings, lists: Shortlist, thresholds: Thresholds, parts: Path
) -> None:
    """All attacks on the onset predictors, in both readers."""
    path = parts / f"{ONSET_PREDICTORS}_attacked.parquet"
    if path.exists():
        return
    attacks = attack_onset_predictors(
        lists.onset_predictors,
        list(cfg.pair.readers),
        cfg.behaviours,
        saved_maxima(readings, parts, ONSETS),
        readings.rows,
        thresholds,
    )
    write_table(path, _frame(list(attacks), Attack))


def _frame(rows: Sequence[Any], kind: type) -> pd.DataFrame:
    return pd.DataFrame(list(map(asdict, rows)), columns=[field.name for field in fields(kind)])


def _joined(parts: Path, what: str, kind: type) -> pd.DataFrame:
    tables = [read_table(path) for path in sorted(parts.glob(f"*_{what}.parquet"))]
    return pd.concat(tables or [_frame([], kind)], ignore_index=True)
