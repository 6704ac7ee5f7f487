"""Edit the latents of each move in both models, and measure what that changes, against controls."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import (
    BrokenArtifact,
    Manifest,
    Stage,
    read_json,
    require_stage,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.lm.generate import Rollout, generate
from sae_reasoning.edges.lm.load import (
    LanguageModel,
    describe,
    encode_prompt,
    load,
    resolve_device,
)
from sae_reasoning.edges.plots import plot_effects
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_dictionary
from sae_reasoning.edges.tables import read_table, read_traces, write_table
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.steering.conditions import (
    ABLATE,
    CLAMP,
    Condition,
    EditPlan,
    LatentId,
    plan_conditions,
)
from sae_reasoning.steering.controls import LatentSizes
from sae_reasoning.steering.edits import RowEdits
from sae_reasoning.steering.effects import effects, findings, judged_counts, mismatched_controls
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.traces.annotate import Annotator, annotator_for

_MAIN_EDIT = {"base": CLAMP, "rl": ABLATE}
"""Sufficiency where the moves are rare, necessity where they are deployed; the other edit of each
model is made too, with one draw of each control."""
_POSITIONAL = "positional, not testable"


def ablate(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `generations.parquet` and `effects.parquet` in `ablate`, on one split's problems only.

    The select split's go to `ablate_select`, so that tuning never replaces the reported result.
    """
    inputs = _inputs(cfg)
    split = cfg.ablate.split
    name = cfg.place("ablate").name
    with Stage(cfg.place("ablate"), cfg.settings("ablate"), inputs) as stage:
        if stage.is_current:
            console.current(name, stage.final)
            assert stage.manifest
            return stage.manifest
        experiment = _prepare(cfg)
        console.plan(name, experiment.lines())
        rollouts = _generations(cfg, experiment, stage.folder, console)
        found = effects(
            rollouts,
            judged_counts(rollouts, cfg.behaviours),
            split=split,
            num_resamples=cfg.ablate.bootstrap,
            seed=cfg.ablate.seed,
        )
        write_table(stage.folder / "effects.parquet", found)
        plot_effects(found, stage.folder / "effects.png")
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        manifest = stage.finish(experiment.counts() | {"generations": len(rollouts)})
    summary = findings(found)
    tracker.table("effects", found)
    tracker.figure("effects", stage.final / "effects.png")
    tracker.summary(manifest.counts)
    title = f"effects of the edits, per trace, on the {split} split"
    console.table(title, list(summary.columns), summary.values.tolist())
    if unlike := mismatched_controls(found):
        console.warn(
            "matched latents move the residual unlike the edit they control for, per token: "
            f"{', '.join(unlike)} as far; judge these edits by the random directions, which move "
            "exactly as far"
        )
    console.wrote(stage.final, manifest)
    console.next("make contrast")
    return manifest


def _inputs(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is read; the shortlist must be of these traces, dictionaries, models.

    Otherwise the problems that selected its latents might be among those reported on.
    """
    models = {model: describe(getattr(cfg.pair, model)).fingerprint for model in _MAIN_EDIT}
    return models | {
        name: require_stage(cfg.folder, name, cfg.settings(name), models).fingerprint
        for name in ("traces", "train", "rank")
    }


@dataclass(frozen=True)
class _Problem:
    """A problem to generate on."""

    problem_id: str
    prompt: str

    @property
    def key(self) -> int:
        """Of its sampling noise: the same whatever other problems are chosen."""
        digest = hashlib.sha256(self.problem_id.encode()).digest()
        return int.from_bytes(digest[:7], "big")


@dataclass(frozen=True)
class _Experiment:
    """Everything that is settled before a model is loaded."""

    split: str
    problems: list[_Problem]
    chosen: dict[str, list[LatentId]]
    conditions: dict[str, list[Condition]]
    samples: dict[str, int]
    dictionaries: dict[int, Dictionary]
    annotate: Annotator
    edits: str

    def counts(self) -> dict[str, int]:
        return {
            "problems": len(self.problems),
            "behaviours": len(self.chosen),
            "conditions": sum(map(len, self.conditions.values())),
        }

    def lines(self) -> dict[str, str]:
        rollouts = {
            model: len(conditions) * len(self.problems) * self.samples[model]
            for model, conditions in self.conditions.items()
        }
        return {
            "problems": f"{len(self.problems)} of the {self.split} split",
            **{
                behaviour: f"{len(latents)} latents: " + " ".join(map(str, latents))
                for behaviour, latents in self.chosen.items()
            },
            "edits": self.edits,
            "conditions": ", ".join(f"{m}: {len(c)}" for m, c in self.conditions.items()),
            "rollouts": ", ".join(f"{model}: {n:,}" for model, n in rollouts.items()),
        }


def _prepare(cfg: Config) -> _Experiment:
    """Read and check what earlier stages found; no model is loaded.

    Raises:
        ConfigError: An option doesn't fit them.
        BrokenArtifact: The shortlist was made from other dictionaries than there are.
    """
    annotate = annotator_for(cfg.traces.source)
    if annotate is None:
        raise ConfigError(
            f"traces.source={cfg.traces.source} has no annotator for new text, so effects of edits "
            "can't be counted; use traces.source=search"
        )
    shortlist = read_json(cfg.folder / "rank" / "shortlist.json")
    latents = read_table(cfg.folder / "rank" / "latents.parquet")
    layer_of = dict(zip(latents.dictionary, latents.layer.tolist(), strict=True))
    dictionaries = _dictionaries(cfg, shortlist, layer_of)
    chosen = _choose(cfg, shortlist)
    problems = dict.fromkeys(
        _Problem(trace.problem_id, trace.prompt)
        for trace in read_traces(cfg.folder / "traces" / "traces.parquet")
        if trace.split == cfg.ablate.split
    )
    if not problems:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves no problem to the "
            f"{cfg.ablate.split} split; {'raise' if cfg.ablate.split == 'report' else 'lower'} it"
        )
    sizes = {model: _sizes(cfg, latents, model, dictionaries) for model in _MAIN_EDIT}
    listed = {
        LatentId(entry["layer"], entry["latent"])
        for lists in (shortlist["trackers"], shortlist["announcers"])
        for entries in lists.values()
        for entry in entries
    }
    try:
        conditions = {
            model: plan_conditions(
                chosen,
                _plans(cfg, main),
                sizes=sizes[model],
                shortlisted=listed,
                d_model=next(iter(dictionaries.values())).d_in,
                seed=cfg.ablate.seed,
            )
            for model, main in _MAIN_EDIT.items()
        }
    except ValueError as error:
        raise ConfigError(
            f"ablate.num_latents={cfg.ablate.num_latents}, "
            f"ablate.clamp_latents={cfg.ablate.clamp_latents}: {error}; lower them or "
            "rank.announcers, or raise train.sae.d_sae"
        ) from error
    samples = {"base": cfg.ablate.base_samples, "rl": cfg.ablate.samples}
    kept = list(problems)[: cfg.ablate.num_problems]
    edits = (
        f"the first {cfg.ablate.num_latents} of a move to 0, the first {cfg.ablate.clamp_latents} "
        f"to {cfg.ablate.clamp_multiple:g} of their maximum"
    )
    return _Experiment(
        cfg.ablate.split, kept, chosen, conditions, samples, dictionaries, annotate, edits
    )


def _plans(cfg: Config, main: str) -> list[EditPlan]:
    """Both edits of a model, the main one with all draws of its controls."""
    own = cfg.ablate
    plans = [
        EditPlan(ABLATE, own.num_latents, own.controls),
        EditPlan(CLAMP, own.clamp_latents, own.controls, own.clamp_multiple),
    ]
    return [plan if plan.edit == main else replace(plan, num_draws=1) for plan in plans]


def _dictionaries(
    cfg: Config, shortlist: dict[str, Any], layer_of: Mapping[str, int]
) -> dict[int, Dictionary]:
    """By layer; each is the one that was ranked."""
    found: dict[int, Dictionary] = {}
    for name, known in shortlist["dictionaries"].items():
        dictionary = load_dictionary(cfg.folder / known["folder"], resolve_device(cfg.device))
        if dictionary.fingerprint != known["fingerprint"]:
            raise BrokenArtifact(
                f"{cfg.folder / 'rank' / 'shortlist.json'} was made from another dictionary than "
                f"{known['folder']} ({known['fingerprint']}, not {dictionary.fingerprint}); "
                "run `make rank` again"
            )
        found[layer_of[name]] = dictionary
    return found


def _choose(cfg: Config, shortlist: dict[str, Any]) -> dict[str, list[LatentId]]:
    """The best latents of each move to edit, over the config's layers and moves, best first."""
    lists = {
        behaviour: [entry for entry in entries if entry["layer"] in cfg.layers]
        for behaviour, entries in shortlist[cfg.ablate.shortlist].items()
        if behaviour in cfg.behaviours
    }
    ranked = {b: entries for b, entries in lists.items() if entries}
    asked = [behaviour for behaviour in cfg.ablate.behaviours if behaviour in cfg.behaviours]
    for behaviour in asked:
        if behaviour not in ranked:
            raise ConfigError(
                f"ablate.behaviours: {behaviour} has no {cfg.ablate.shortlist} on the shortlist; "
                f"choose from {', '.join(ranked) or 'none'}, or run `make rank` with more traces"
            )
    testable = [b for b, entries in ranked.items() if entries[0].get("status") != _POSITIONAL]
    chosen = {}
    for behaviour in asked or testable:
        latents = dict.fromkeys(LatentId(e["layer"], e["latent"]) for e in ranked[behaviour])
        chosen[behaviour] = list(latents)[: max(cfg.ablate.num_latents, cfg.ablate.clamp_latents)]
    if not chosen:
        raise ConfigError(
            f"ablate.shortlist={cfg.ablate.shortlist} is empty for every move; raise "
            "traces.num_problems, then run `make rank` again"
        )
    return chosen


def _sizes(
    cfg: Config, table: pd.DataFrame, reader: str, dictionaries: Mapping[int, Dictionary]
) -> dict[int, LatentSizes]:
    """How often and strongly latents fire in `reader`, on the texts that hold the moves."""
    found = {}
    for layer, dictionary in dictionaries.items():
        of_layer = table[table.layer == layer].sort_values("latent", kind="stable")
        here = of_layer[(of_layer.reader == reader) & (of_layer.writer == "rl")]
        if here.latent.tolist() != list(range(dictionary.d_sae)):
            raise BrokenArtifact(
                f"{cfg.folder / 'rank' / 'latents.parquet'} doesn't list the {dictionary.d_sae} "
                f"latents of layer {layer}; run `make rank` again"
            )
        found[layer] = LatentSizes(
            here.firing_rate.to_numpy(),
            here.mean_active.fillna(0.0).to_numpy(),
            of_layer.groupby("latent").max_active.max().fillna(0.0).to_numpy(),
        )
    return found


@dataclass(frozen=True)
class _Row:
    """One rollout to make."""

    number: int
    condition: Condition
    problem: _Problem
    sample: int


def _generations(
    cfg: Config, experiment: _Experiment, folder: Path, console: Console
) -> pd.DataFrame:
    """Rollouts of both models under every condition, one part file a condition.

    Batches are cut from the list of all rollouts of a model, whatever is done already, so a
    resumed run computes the same numbers as an unbroken one.
    """
    whole = folder / "generations.parquet"
    if whole.exists():
        return read_table(whole)
    parts = []
    for model, conditions in experiment.conditions.items():
        paths = [folder / "parts" / f"{model}_{i:04d}.parquet" for i in range(len(conditions))]
        parts += paths
        rows = [
            _Row(number, condition, problem, sample)
            for number, condition in enumerate(conditions)
            for problem in experiment.problems
            for sample in range(experiment.samples[model])
        ]
        size = cfg.ablate.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        missing = [batch for batch in batches if not all(paths[r.number].exists() for r in batch)]
        if not missing:
            continue
        lm = load(getattr(cfg.pair, model), cfg.device)
        made: dict[int, list[dict[str, Any]]] = {}
        done = len(rows) - sum(map(len, missing))
        with console.progress(len(rows), "rollouts", f"{model} edited", done=done) as bar:
            for batch in missing:
                for row, record in _roll_out(cfg, experiment, lm, model, batch):
                    made.setdefault(row.number, []).append(record)
                for number in sorted({row.number for row in batch}):
                    records = made[number]
                    if len(records) < len(rows) // len(conditions):
                        continue
                    if not paths[number].exists():
                        records.sort(key=lambda r: (r["problem_id"], r["sample"]))
                        write_table(paths[number], pd.DataFrame(records))
                    del made[number]
                bar.advance(len(batch))
    rollouts = pd.concat([read_table(path) for path in parts], ignore_index=True)
    write_table(whole, rollouts)
    return rollouts


def _roll_out(
    cfg: Config, experiment: _Experiment, lm: LanguageModel, model: str, batch: Sequence[_Row]
) -> Iterator[tuple[_Row, dict[str, Any]]]:
    """One batch; its rows may be under different conditions."""
    conditions = list(dict.fromkeys(row.condition for row in batch))
    which = torch.tensor([conditions.index(row.condition) for row in batch])
    edits = RowEdits(
        [condition.intervention for condition in conditions],
        which,
        {layer: (d.encode_sparse, d.W_dec) for layer, d in experiment.dictionaries.items()},
    )
    keys = torch.tensor([[cfg.ablate.seed, row.problem.key, row.sample] for row in batch])
    rollouts: list[Rollout] = sorted(
        generate(
            lm,
            [encode_prompt(lm.tokenizer, row.problem.prompt) for row in batch],
            sampler=keyed_sampler(keys, cfg.ablate.temperature),
            max_new_tokens=cfg.ablate.max_new_tokens,
            batch_size=len(batch),
            edits=edits.by_layer,
        ),
        key=lambda rollout: rollout.row,
    )
    # The token that ends a rollout is predicted from an edited position too.
    norm_sums, num_edited = edits.norms(
        torch.tensor([len(r.token_ids) + (not r.truncated) for r in rollouts])
    )
    for rollout, norm_sum, times in zip(
        rollouts, norm_sums.tolist(), num_edited.tolist(), strict=True
    ):
        row = batch[rollout.row]
        text = lm.decode(list(rollout.token_ids))
        judged = experiment.annotate(row.problem.prompt, text, rollout.truncated)
        condition = row.condition
        yield (
            row,
            {
                "model": model,
                "layer": condition.layers,
                "latents": condition.latent_names,
                "edit": condition.edit,
                "dose": condition.dose,
                "condition": condition.kind,
                "draw": condition.draw,
                "behaviour": condition.behaviour,
                "problem_id": row.problem.problem_id,
                "sample": row.sample,
                "prompt": row.problem.prompt,
                "text": text,
                "correct": judged.correct,
                "truncated": rollout.truncated,
                "num_tokens": len(rollout.token_ids),
                "spans": [asdict(span) for span in judged.spans],
                "opportunities": [asdict(opportunity) for opportunity in judged.opportunities],
                "norm_sum": norm_sum,
                "num_edited": times,
            },
        )
