"""What is left of both shortlists when they are attacked, in every reader."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import pandas as pd

from sae_reasoning.behaviours.attacks import attack_onset_predictor
from sae_reasoning.behaviours.injection import Injection
from sae_reasoning.behaviours.outcomes import Attack, Bars, Target, call
from sae_reasoning.behaviours.replication import Replica
from sae_reasoning.behaviours.windows import POSITIONAL, cell_index
from sae_reasoning.config import Config
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.endpoint import Endpoint
from sae_reasoning.edges.tables import read_table, write_table
from sae_reasoning.edges.workers import num_workers
from sae_reasoning.jobs.rank.data import RankData, saved_maxima
from sae_reasoning.jobs.rank.injected import attack_with_words
from sae_reasoning.jobs.rank.replicas import attack_with_seeds
from sae_reasoning.jobs.rank.rewritten import attack_with_paraphrase
from sae_reasoning.jobs.rank.rivals import RandomReader
from sae_reasoning.jobs.rank.subjects import Subject, by_layer, subjects
from sae_reasoning.opening import open_task
from sae_reasoning.records import ONSET_PREDICTORS, Shortlist
from sae_reasoning.tasks.protocol import Paraphraser


@dataclass(frozen=True)
class Attacked:
    """Tables of the stage.

    Attributes:
        attacks: One row an `Attack`, with what its latent is called.
        injections: One row an `Injection`.
        replicas: One row a `Replica`; empty where `rank.replicas` is 0.
    """

    attacks: pd.DataFrame
    injections: pd.DataFrame
    replicas: pd.DataFrame


def attack_shortlists(
    cfg: Config,
    data: RankData,
    lists: Shortlist,
    random: RandomReader,
    parts: Path,
    console: Console,
) -> list[Callable[[], None]]:
    """Every attack, in pieces that leave their tables in `parts`.

    Where processes share them, models are loaded before they part, and the largest comes first;
    else one reader comes after another.
    """
    bars = Bars(cfg.rank.attacks, cfg.rank.bootstrap, cfg.rank.seed)
    is_shared = num_workers(random.lm.device, 2 * (len(cfg.pair.readers) + 1)) > 1
    readers = subjects(cfg, data, lists, random, parts, is_shared=is_shared)
    pieces = [
        (
            partial(_by_words, cfg, subject, bars, parts, console),
            partial(_by_text, cfg, data, subject, bars, parts, console),
        )
        for subject in readers
        if subject.targets
    ]
    if is_shared:
        for subject in readers:
            subject.lm()
        pieces = list(zip(*pieces, strict=True))
    return [
        *(piece for group in pieces for piece in group),
        partial(_onset_predictors, cfg, data, lists, bars, parts),
    ]


def gather_attacks(data: RankData, parts: Path) -> Attacked:
    """What the pieces have left, with what each latent is called."""
    positional = {key for key, status in data.labels.status.items() if status == POSITIONAL}
    return Attacked(
        call(_joined(parts, "attacked", Attack), positional),
        _joined(parts, "injections", Injection),
        _joined(parts, "replicas", Replica),
    )


def _by_words(cfg: Config, subject: Subject, bars: Bars, parts: Path, console: Console) -> None:
    """A reader's span detectors attacked by their own words put elsewhere."""
    path = parts / f"{subject.name}_words_attacked.parquet"
    if path.exists():
        return
    attacks, injections = attack_with_words(cfg, subject, subject.lm(), bars, console)
    write_table(parts / f"{subject.name}_injections.parquet", _frame(injections, Injection))
    write_table(path, _frame(attacks, Attack))


def _by_text(
    cfg: Config, data: RankData, subject: Subject, bars: Bars, parts: Path, console: Console
) -> None:
    """All other attacks on a reader's span detectors."""
    path = parts / f"{subject.name}_text_attacked.parquet"
    if path.exists():
        return
    attacks = attack_by_text(cfg, subject, _paraphraser(cfg), bars, console)
    if cfg.rank.replicas and subject.name in cfg.pair.readers:
        killed_by_seeds, replicas = attack_with_seeds(cfg, data, subject, parts, console)
        attacks += killed_by_seeds
        write_table(parts / f"{subject.name}_replicas.parquet", _frame(replicas, Replica))
    write_table(path, _frame(attacks, Attack))


def attack_by_text(
    cfg: Config, subject: Subject, paraphraser: Paraphraser | None, bars: Bars, console: Console
) -> list[Attack]:
    """The attacks on a reader's span detectors by the text as it stands, and in other words."""
    attacks = [*subject.by_text(cfg.behaviours, bars)]
    if paraphraser is not None:
        attacks += attack_with_paraphrase(cfg, subject, subject.lm(), paraphraser, bars, console)
    return attacks


def _paraphraser(cfg: Config) -> Paraphraser | None:
    """The endpoint that was named, else templates where the task has them."""
    if cfg.rank.paraphrase_endpoint:
        return Endpoint(cfg.rank.paraphrase_endpoint, cfg.rank.paraphrase_model).reword
    return open_task(cfg).paraphraser


def _onset_predictors(
    cfg: Config, data: RankData, lists: Shortlist, bars: Bars, parts: Path
) -> None:
    """All attacks on the onset predictors, in both readers."""
    path = parts / f"{ONSET_PREDICTORS}_attacked.parquet"
    if path.exists():
        return
    onsets_of = saved_maxima(data, parts, "onsets")
    targets = [
        Target(ONSET_PREDICTORS, behaviour, reader, entry.writer, entry.layer, entry.latent)
        for behaviour, entries in lists.onset_predictors.items()
        for reader in cfg.pair.readers
        for entry in entries
    ]
    attacks = [
        attack
        for reader in cfg.pair.readers
        for target, latents in by_layer([t for t in targets if t.reader == reader])
        for attack in attack_onset_predictor(
            target,
            latents,
            cell_index(cfg.behaviours.index(target.behaviour), target.writer, "report"),
            onsets_of(reader, target.layer),
            data.rows,
            bars,
        )
    ]
    write_table(path, _frame(attacks, Attack))


def _frame(rows: list, kind: type) -> pd.DataFrame:
    return pd.DataFrame(list(map(asdict, rows)), columns=[field.name for field in fields(kind)])


def _joined(parts: Path, what: str, kind: type) -> pd.DataFrame:
    tables = [read_table(path) for path in sorted(parts.glob(f"*_{what}.parquet"))]
    return pd.concat(tables or [_frame([], kind)], ignore_index=True)
