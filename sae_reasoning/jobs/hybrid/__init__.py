"""A base model, steered token by token at times that a policy chooses, against the RL model.

1. Both models read the RL model's select traces: readouts say from latents which behaviour starts,
   and thresholds are set for each budget (`steering.timing`).
2. Each kind of vector is made for each behaviour, with layer and dose (`steering.onset_vectors`);
   one multiple for all of a kind's vectors is chosen by accuracy on select problems.
3. On report problems the base writes under every policy, vector and budget, in lockstep with the RL
   model; what each recovers of the gap in accuracy is a curve over the share of tokens steered.

Everything that is chosen is chosen on the select split. What is fitted and each batch is kept as a
part, so a killed run goes on from there.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import Manifest, Stage
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import inputs_of
from sae_reasoning.edges.lm.compare import compare, places_of
from sae_reasoning.edges.lm.load import continuation_ids, resolve_device
from sae_reasoning.edges.lm.steered import SteeredContinuations
from sae_reasoning.edges.plots import plot_recovery
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.schema import write_artifact
from sae_reasoning.edges.shortlist import read_shortlist
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.edges.tracker import GAP_CURVE, Tracker
from sae_reasoning.jobs.hybrid.rollouts import Steered, run_trials
from sae_reasoning.opening import first_problems, open_task
from sae_reasoning.records import BASE, MODELS, REPORT, RL, SELECT, Shortlist, Trace
from sae_reasoning.rollouts.pair import LoadedPair
from sae_reasoning.rollouts.parts import Parts
from sae_reasoning.steering import recovery, trials
from sae_reasoning.steering.onset_vectors import (
    LogProbs,
    Vector,
    VectorSearch,
    by_kind,
    choose_vectors,
    mean_shift,
    more_active,
)
from sae_reasoning.steering.policies import disagreement
from sae_reasoning.steering.readout import LatentReader
from sae_reasoning.steering.timing import ENTRY, OnsetReading, Timing, fit_timing, onset_classes
from sae_reasoning.tasks.protocol import Task
from sae_reasoning.texts import bounded


def hybrid(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `hybrid.parquet`, `generations.parquet`, `choices.json` and `hybrid.png` in `hybrid`."""
    own, inputs = cfg.hybrid, inputs_of("hybrid", cfg)
    with Stage(cfg.folder / "hybrid", cfg.settings("hybrid"), inputs) as stage:
        if done := console.up_to_date(stage):
            return done
        behaviours = _behaviours(cfg)
        traces = read_traces(cfg.folder / "traces" / "traces.parquet")
        most = {SELECT: own.select_problems, REPORT: own.num_problems}
        problems = first_problems(cfg, most)
        task = open_task(cfg, traces).with_openings(traces, behaviours)
        pair = LoadedPair(cfg.pair, cfg.device)
        console.plan("hybrid", _plan(cfg, behaviours, problems))
        parts = Parts(stage.folder / "parts")
        latents = _shortlisted(cfg)
        console.say("hybrid: both models read the RL model's select traces")
        reading = _read(cfg, behaviours, traces, pair, latents.reader)
        timing = Timing.of(
            parts.json(
                "timing",
                lambda: fit_timing(reading, latents.reader, own.budgets, own.seed).record(),
            ),
            latents.reader,
        )
        vectors, lacking = _vectors(cfg, reading, pair, latents, parts, console)
        for name, reason in lacking.items():
            console.say(f"  no vector: {name}; {reason}")
        if not vectors:
            console.say("hybrid: no steering vectors, tokens are swapped alone")
        classes = len(reading.behaviours) + 1
        steered = Steered(pair, task, timing, cfg.layers, classes, own)
        run = partial(run_trials, steered, parts=parts, console=console)

        sizes = trials.NO_SIZES
        if vectors:
            biases = {layer: mean_shift(reading, layer) for layer in cfg.layers}
            widest = timing.thresholds["oracle"][-1]
            tried = trials.size_trials(own, reading.behaviours, vectors, biases, widest)
            sized = run(tried, problems[SELECT], label="doses")
            if sized.correct.isna().all():
                console.say("hybrid: no answer could be graded, so there is no gap, nor a choice")
            sizes = trials.choose_sizes(own, sized, vectors, biases)
        openings = _openings(task, reading)
        if not openings:
            console.say("hybrid: without cue-word; the task doesn't say how behaviours begin")
        words = [continuation_ids(pair[BASE], opening) for opening in openings.values()]
        differs = float(reading.seen.differs.float().mean())
        steering = trials.Steering(
            reading.behaviours, vectors, sizes, timing.thresholds, differs, {}, words
        )
        shares: Mapping[float, Sequence[float]] = {}
        if vectors:
            timed = run(trials.oracle_trials(own, steering), problems[SELECT], label="shares")
            shares = trials.shares_by_budget(timed)
        steering = replace(steering, shares=shares)
        rollouts = run(trials.report_trials(own, steering), problems[REPORT], label="report")

        found = recovery.recovery(
            rollouts,
            _used(traces),
            behaviours,
            num_resamples=own.bootstrap,
            seed=own.seed,
        )
        choices = {
            "timing": timing.found,
            "vectors": [vector.record() for kind in vectors.values() for vector in kind.values()],
            "vectors left out": lacking,
            **sizes.tried,
            "shares on select": {
                str(budget): dict(zip(reading.behaviours, each, strict=True))
                for budget, each in shares.items()
            },
            "cue words": openings,
        }
        write_table(stage.folder / "generations.parquet", rollouts)
        write_table(stage.folder / "hybrid.parquet", found)
        write_artifact(stage.folder / "choices.json", choices)
        plot_recovery(found, stage.folder / "hybrid.png")
        shutil.rmtree(parts.folder, ignore_errors=True)
        manifest = stage.finish({"generations": len(rollouts), "problems": len(problems[REPORT])})
    _say(found, rollouts, stage, manifest, tracker, console)
    return manifest


def _say(
    found: pd.DataFrame,
    rollouts: pd.DataFrame,
    stage: Stage,
    manifest: Manifest,
    tracker: Tracker,
    console: Console,
) -> None:
    tracker.table("hybrid", found)
    tracker.curves(
        GAP_CURVE,
        recovery.gap_curves(found),
        x="share_steered",
        y="gap_recovered",
        line="line",
        title="gap recovered over the share of tokens steered",
    )
    tracker.figure("hybrid", stage.final / "hybrid.png")
    tracker.summary(manifest.counts)
    summary, gap = recovery.findings(found), found.iloc[0]
    console.table(
        "gap recovered at each share of tokens steered (median positions of a rollout), "
        f"of a gap of {bounded(gap.gap, gap.gap_low, gap.gap_high)}, {gap.n} report problems",
        list(summary.columns),
        summary.values.tolist(),
        at_most=10,
    )
    console.tell(recovery.recovered_in_words(found))
    if left := recovery.left_in_words(found):
        console.say(f"  {left}")
    if ungraded := int(rollouts.correct.isna().sum()):
        console.say(f"hybrid: {ungraded} of {len(rollouts)} answers are ungraded and left out")
    console.wrote(stage.final, manifest)
    console.next("report")


def _behaviours(cfg: Config) -> list[str]:
    """Behaviours that the base may be steered to.

    Raises:
        ConfigError: One of them isn't tracked.
    """
    found = cfg.hybrid.behaviours or cfg.behaviours
    if unknown := set(found) - set(cfg.behaviours):
        raise ConfigError(
            f"hybrid.behaviours: {', '.join(sorted(unknown))} isn't tracked; choose from "
            f"{', '.join(cfg.behaviours)}"
        )
    return list(found)


def _plan(
    cfg: Config, behaviours: Sequence[str], problems: Mapping[str, Sequence[object]]
) -> dict[str, str]:
    own = cfg.hybrid
    return {
        "steered to": ", ".join([ENTRY, *behaviours]),
        "problems": ", ".join(f"{s}: {len(p)}" for s, p in problems.items()),
        "vectors": ", ".join(own.vectors),
        "budgets": ", ".join(f"{budget:.1%}" for budget in own.budgets) + " of tokens",
    }


def _used(traces: Sequence[Trace]) -> dict[str, set[str]]:
    """Of each report problem, the behaviours in the RL model's right traces of it."""
    found: dict[str, set[str]] = {}
    for trace in traces:
        if (trace.split, trace.writer) == (REPORT, RL) and trace.correct:
            own = found.setdefault(trace.problem_id, set())
            own |= {span.behaviour for span in trace.spans}
    return found


@dataclass(frozen=True)
class _Shortlisted:
    """Latents of the shortlist, with their dictionaries by layer."""

    shortlist: Shortlist
    dictionaries: Mapping[int, Dictionary]
    reader: LatentReader


def _shortlisted(cfg: Config) -> _Shortlisted:
    """All shortlisted latents of the config's layers and behaviours.

    Raises:
        ConfigError: There is none.
    """
    shortlist = read_shortlist(cfg.folder / "rank")
    dictionaries = load_ranked(cfg.folder, shortlist, cfg.layers, resolve_device(cfg.device))
    chosen: dict[int, set[int]] = {layer: set() for layer in dictionaries}
    for lists in (shortlist.onset_predictors, shortlist.span_detectors):
        for behaviour in set(lists) & set(cfg.behaviours):
            for entry in lists[behaviour]:
                if entry.layer in chosen:
                    chosen[entry.layer].add(entry.latent)
    found = {layer: sorted(latents) for layer, latents in chosen.items() if latents}
    if not found:
        raise ConfigError(
            f"the shortlist has no latent of layers={cfg.layers} and "
            f"behaviours={list(cfg.behaviours)}; name others, or raise "
            f"traces.num_problems={cfg.traces.num_problems} and run `make rank` again"
        )
    encoders = {layer: (d.encode_sparse, d.d_sae) for layer, d in dictionaries.items()}
    return _Shortlisted(shortlist, dictionaries, LatentReader(encoders, found))


def _read(
    cfg: Config,
    behaviours: Sequence[str],
    traces: Sequence[Trace],
    pair: LoadedPair,
    reader: LatentReader,
) -> OnsetReading:
    """Read the RL model's select traces with both models.

    Raises:
        ConfigError: There are none.
    """
    chosen = [t for t in traces if (t.split, t.writer) == (SELECT, RL)]
    chosen = chosen[: cfg.hybrid.select_traces]
    if not chosen:
        raise ConfigError(
            f"traces.report_share={cfg.traces.report_share} leaves no trace to the select split; "
            "lower it"
        )
    found = onset_classes(chosen, behaviours)
    first = [trace.num_prompt_tokens for trace in chosen]
    at = places_of([len(trace.token_ids) for trace in chosen], first)
    places = list(zip(*(index.tolist() for index in at), strict=True))
    seen = compare(
        {model: pair[model] for model in MODELS},
        [trace.token_ids for trace in chosen],
        first,
        cfg.layers,
        cfg.hybrid.token_budget,
        disagreement,
        reader,
        torch.tensor([place in found.starts or place in found.possible for place in places]),
    )
    classes = torch.tensor([found.starts.get(place, 0) for place in places])
    return OnsetReading(found.behaviours, chosen, seen, classes)


def _vectors(
    cfg: Config,
    reading: OnsetReading,
    pair: LoadedPair,
    latents: _Shortlisted,
    parts: Parts,
    console: Console,
) -> tuple[dict[str, dict[str, Vector]], dict[str, str]]:
    """Vectors by kind and behaviour, where any makes what the RL model wrote likelier; why not."""
    own = cfg.hybrid

    def continuations(places: Int[Tensor, " place"]) -> LogProbs:
        prefixes, rest = [], []
        for place in places.tolist():
            after = int(reading.seen.token[place]) + 1
            token_ids = reading.traces[int(reading.seen.sequence[place])].token_ids
            prefixes.append(token_ids[:after])
            rest.append(token_ids[after : after + own.horizon])
        return SteeredContinuations(pair[BASE], prefixes, rest).log_probs

    def directions(index: int, layer: int) -> Float[Tensor, "latent d_model"]:
        dictionary, behaviour = latents.dictionaries[layer], reading.behaviours[index - 1]
        if behaviour == ENTRY:
            rl, base = (
                dictionary.encode(reading.at_onsets(m, index, layer).to(dictionary.device))
                for m in (RL, BASE)
            )
            rows = more_active(rl, base, own.onset_predictors)
        else:
            entries = latents.shortlist.onset_predictors.get(behaviour, ())
            own_latents = dict.fromkeys(e.latent for e in entries if e.layer == layer)
            rows = list(own_latents)[: own.onset_predictors]
        return dictionary.W_dec[rows].float().cpu()

    def make() -> dict[str, Any]:
        console.say(f"hybrid: vectors ({', '.join(own.vectors)})")
        search = VectorSearch(
            own.vectors, cfg.layers, own.doses, own.places, own.steps, own.lr, own.seed
        )
        found, lacking = choose_vectors(reading, search, continuations, directions)
        return {"vectors": [vector.record() for vector in found], "lacking": lacking}

    made = parts.json("vectors", make)
    return by_kind([Vector.of(record) for record in made["vectors"]]), made["lacking"]


def _openings(task: Task, reading: OnsetReading) -> dict[str, str]:
    """With what the RL model most often starts each behaviour; none where nobody knows how."""
    if task.openings is None:
        return {}
    found = {ENTRY: task.formats[RL].thinking_prefix}
    for index, name in enumerate(reading.behaviours, 1):
        if name != ENTRY:
            openings = task.openings.of(name)
            found[name] = reading.usual_opening(index, openings) if openings else ""
    return found if any(found.values()) else {}
