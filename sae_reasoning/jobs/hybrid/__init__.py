"""A base model, steered token by token at times that a policy chooses, against the RL model.

1. Both models read the RL model's select traces: latents that say which move starts are weighed,
   and thresholds are set for each budget (`material`).
2. Each kind of vector is made for each move, with layer and dose (`vectors`); one multiple for all
   of a kind's vectors is chosen by accuracy on select problems.
3. On report problems the base writes under every policy, vector and budget, in lockstep with the RL
   model; what each recovers of the gap in accuracy is a curve over the share of tokens steered.

Everything that is chosen is chosen on the select split. Each batch is kept as a part, so a killed
run goes on from there.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.edges.artifacts import (
    Manifest,
    Stage,
    read_json,
    require_stage,
    write_json,
)
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import models_in, outside_inputs
from sae_reasoning.edges.lm.load import continuation_ids, load, resolve_device
from sae_reasoning.edges.plots import plot_recovery
from sae_reasoning.edges.sae_checkpoint import Dictionary, load_ranked
from sae_reasoning.edges.tables import read_traces, write_table
from sae_reasoning.edges.tracker import GAP_CURVE, Tracker
from sae_reasoning.jobs.hybrid.material import (
    BASE,
    ENTRY,
    RL,
    Material,
    fit_timing,
    latent_reader,
    opening_of,
    read_material,
)
from sae_reasoning.jobs.hybrid.rollouts import Bench, Trial, run_trials
from sae_reasoning.jobs.hybrid.vectors import Vector, by_kind, global_bias, make_vectors
from sae_reasoning.opening import first_problems
from sae_reasoning.steering import recovery
from sae_reasoning.steering.controls import random_direction
from sae_reasoning.steering.policies import (
    ALWAYS,
    DIFFERS,
    GATE,
    NEVER,
    ORACLE,
    RANDOM,
    SWAP,
    WRITE,
    Policy,
)
from sae_reasoning.steering.readout import LatentReader
from sae_reasoning.steering.recovery import NOTHING
from sae_reasoning.steering.vectors import Steer
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS, THINK
from sae_reasoning.texts import bounded
from sae_reasoning.traces.annotate import Annotator, annotator_for

_NO_BUDGET = float("nan")


def hybrid(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `hybrid.parquet`, `generations.parquet`, `choices.json` and `hybrid.png` in `hybrid`."""
    inputs = _inputs(cfg)
    with Stage(cfg.folder / "hybrid", cfg.settings("hybrid"), inputs) as stage:
        if stage.is_current:
            console.current("hybrid", stage.final)
            assert stage.manifest
            return stage.manifest
        lab = _Lab(cfg, stage, console)
        console.plan("hybrid", lab.lines())
        lab.choose()
        rollouts = lab.report()
        found = recovery.recovery(
            rollouts,
            lab.uses,
            lab.behaviours,
            num_resamples=cfg.hybrid.bootstrap,
            seed=cfg.hybrid.seed,
        )
        write_table(stage.folder / "generations.parquet", rollouts)
        write_table(stage.folder / "hybrid.parquet", found)
        write_json(stage.folder / "choices.json", lab.choices())
        plot_recovery(found, stage.folder / "hybrid.png")
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        manifest = stage.finish(
            {"generations": len(rollouts), "problems": len(lab.problems["report"])}
        )
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
    summary = recovery.findings(found)
    gap = found.iloc[0]
    console.table(
        "gap recovered at each share of tokens steered (median positions of a rollout), "
        f"of a gap of {bounded(gap.gap, gap.gap_low, gap.gap_high)}, {gap.n} report problems",
        list(summary.columns),
        summary.values.tolist(),
        at_most=10,
    )
    console.tell(recovery.recovered_in_words(found))
    console.wrote(stage.final, manifest)
    console.next("report")
    return manifest


def _inputs(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is read."""
    _annotator(cfg)
    now = outside_inputs(cfg)
    return models_in(cfg, now) | {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint
        for name in ("traces", "train", "rank")
    }


def _annotator(cfg: Config) -> Annotator:
    annotate = annotator_for(cfg.traces.source)
    if annotate is None:
        raise ConfigError(
            f"traces.source={cfg.traces.source} has nobody to grade new text, so a hybrid's "
            "answers can't be counted; use traces.source=search"
        )
    return annotate


class _Lab:
    """Both models on the bench, with the problems of both splits."""

    def __init__(self, cfg: Config, stage: Stage, console: Console) -> None:
        self._cfg, self._own, self._console = cfg, cfg.hybrid, console
        self._parts = stage.folder / "parts"
        self._traces = read_traces(cfg.folder / "traces" / "traces.parquet")
        self.behaviours = self._own.behaviours or cfg.behaviours
        unknown = set(self.behaviours) - set(cfg.behaviours)
        if unknown:
            raise ConfigError(
                f"hybrid.behaviours: {', '.join(sorted(unknown))} isn't tracked; choose from "
                f"{', '.join(cfg.behaviours)}"
            )
        most = {"select": self._own.select_problems, "report": self._own.num_problems}
        self.problems = first_problems(cfg, most)
        self._chosen: dict[str, Any] = {}
        self._shortlist = read_json(cfg.folder / "rank" / "shortlist.json")
        self._dictionaries: dict[int, Dictionary] = load_ranked(
            cfg.folder, self._shortlist, cfg.layers, resolve_device(cfg.device)
        )

    def lines(self) -> dict[str, Any]:
        """The plan."""
        own = self._own
        return {
            "steered to": ", ".join([ENTRY, *self.behaviours]),
            "problems": ", ".join(f"{s}: {len(p)}" for s, p in self.problems.items()),
            "vectors": ", ".join(own.vectors),
            "budgets": ", ".join(f"{budget:.1%}" for budget in own.budgets) + " of tokens",
        }

    @property
    def uses(self) -> dict[str, set[str]]:
        """Of each report problem, the moves in the RL model's right traces of it."""
        found: dict[str, set[str]] = {}
        for trace in self._traces:
            if (trace.split, trace.writer) == ("report", RL) and trace.correct:
                own = found.setdefault(trace.problem_id, set())
                own |= {span.behaviour for span in trace.spans}
        return found

    @cached_property
    def _models(self) -> dict[str, Any]:
        return {
            model: load(getattr(self._cfg.pair, model), self._cfg.device) for model in (BASE, RL)
        }

    @cached_property
    def _material(self) -> Material:
        self._console.say("hybrid: both models read the RL model's select traces")
        return read_material(self._cfg, self.behaviours, self._traces, self._models, self._reader)

    @cached_property
    def _reader(self) -> LatentReader:
        return latent_reader(self._cfg, self._dictionaries, self._shortlist)

    @cached_property
    def _bench(self) -> Bench:
        timing = fit_timing(self._cfg, self._material, self._reader)
        moves = len(self._material.moves)
        return Bench(self._cfg, self._models, timing, _annotator(self._cfg), moves + 1)

    @cached_property
    def _vectors(self) -> dict[str, dict[str, Vector]]:
        path = self._parts / "vectors.json"
        if not path.exists():
            self._console.say(f"hybrid: vectors ({', '.join(self._own.vectors)})")
            made = make_vectors(
                self._cfg,
                self._material,
                self._models[BASE],
                self._dictionaries,
                self._shortlist,
            )
            write_json(path, [vector.record() for vector in made])
        return by_kind([Vector.of(record) for record in read_json(path)])

    def choose(self) -> None:
        """Choose sizes by accuracy on select problems; count what the oracle steers to there."""
        if not self._vectors:
            raise ConfigError(
                "the two models' likeliest tokens differ at no onset of the select split, so there "
                "is nothing to steer; raise traces.num_problems"
            )
        own, layers = self._own, self._cfg.layers
        oracle = self._bench.timing.thresholds["oracle"][-1]
        bias = {layer: global_bias(self._material, layer) for layer in layers}
        trials = [
            Trial(kind, str(multiple), _NO_BUDGET, self._oracle(oracle, kind, multiple), 1)
            for kind in self._vectors
            for multiple in own.multiples
        ]
        trials += [
            Trial(f"bias/{layer}", str(dose), _NO_BUDGET, self._bias(bias[layer] * dose, layer), 1)
            for layer in layers
            for dose in own.doses
        ]
        tried = self._run(trials, "select", "doses")
        self._chosen["accuracy by multiple"] = {
            f"{policy} {vector}": value for (policy, vector), value in _accuracies(tried).items()
        }
        accuracies = _accuracies(tried)
        self._multiple = {
            kind: max(own.multiples, key=lambda m: accuracies[kind, str(m)])
            for kind in self._vectors
        }
        self._best = max(
            self._vectors, key=lambda kind: accuracies[kind, str(self._multiple[kind])]
        )
        layer, dose = max(
            ((layer, dose) for layer in layers for dose in own.doses),
            key=lambda one: accuracies[f"bias/{one[0]}", str(one[1])],
        )
        self._global = self._bias(bias[layer] * dose, layer)
        self._chosen |= {
            "multiples": self._multiple,
            "best vector": self._best,
            "global bias": {"layer": layer, "dose": dose},
        }
        timed = self._run(
            [
                Trial("oracle", self._best, budget, self._oracle(threshold, self._best), 1)
                for budget, threshold in self._thresholds("oracle")
            ],
            "select",
            "shares",
        )
        self._shares = {}
        for budget, part in timed.groupby("budget"):
            positions = (part.num_tokens + ~part.truncated.astype(bool)).sum()
            decided = np.stack(part.decided.to_list()).sum(0)[1:]
            self._shares[budget] = [float(share) for share in decided / positions]
        self._chosen["shares on select"] = {
            str(budget): dict(zip(self._material.moves, shares, strict=True))
            for budget, shares in self._shares.items()
        }

    def choices(self) -> dict[str, Any]:
        """What the select split chose."""
        return {
            "timing": self._bench.timing.found,
            "vectors": [
                vector.record() for own in self._vectors.values() for vector in own.values()
            ],
            **self._chosen,
        }

    def report(self) -> pd.DataFrame:
        """Every policy, vector and budget on the report problems."""
        own = self._own
        always = Policy(ALWAYS, pushes=self._pushes(self._best, self._multiple[self._best]))
        trials = [
            Trial(recovery.BASE, NOTHING, _NO_BUDGET, Policy(NEVER), own.end_samples),
            Trial(recovery.RL, NOTHING, _NO_BUDGET, Policy(ALWAYS, SWAP), own.end_samples),
            Trial("always", self._best, _NO_BUDGET, always, own.samples),
            Trial("global-bias", "global-bias", _NO_BUDGET, self._global, own.samples),
            Trial(
                "token-swap", "wherever they differ", _NO_BUDGET, Policy(DIFFERS, SWAP), own.samples
            ),
        ]
        for number, (budget, threshold) in enumerate(self._thresholds("oracle")):
            swap = Policy(ORACLE, SWAP, threshold)
            cue = Policy(ORACLE, WRITE, threshold, words=self._words)
            trials += [
                Trial("token-swap", NOTHING, budget, swap, own.samples),
                Trial("cue-word", NOTHING, budget, cue, own.samples),
            ]
            gate = self._bench.timing.thresholds["gate"][number]
            for kind in self._vectors:
                pushes = self._pushes(kind, self._multiple[kind])
                latent = Policy(GATE, threshold=gate, pushes=pushes)
                timing = Policy(RANDOM, shares=self._shares[budget], pushes=pushes)
                trials += [
                    Trial("oracle", kind, budget, self._oracle(threshold, kind), own.samples),
                    Trial("latent", kind, budget, latent, own.samples),
                    Trial("random", kind, budget, timing, own.samples),
                ]
            trials += [
                Trial(
                    "random-vector",
                    f"random, as large as {self._best}",
                    budget,
                    replace(self._oracle(threshold, self._best), pushes=self._random(draw)),
                    own.samples,
                    draw,
                )
                for draw in range(own.draws)
            ]
        return self._run(trials, "report", "report")

    def _run(self, trials: Sequence[Trial], split: str, label: str) -> pd.DataFrame:
        return run_trials(
            self._bench, trials, self.problems[split], self._parts, self._console, label
        )

    def _thresholds(self, when: str) -> list[tuple[float, float]]:
        return list(zip(self._own.budgets, self._bench.timing.thresholds[when], strict=True))

    def _oracle(self, threshold: float, kind: str, multiple: float | None = None) -> Policy:
        multiple = self._multiple[kind] if multiple is None else multiple
        return Policy(ORACLE, threshold=threshold, pushes=self._pushes(kind, multiple))

    def _pushes(self, kind: str, multiple: float) -> list[Steer | None]:
        vectors = self._vectors[kind]
        return [
            vectors[move].push(multiple) if move in vectors else None
            for move in self._material.moves
        ]

    def _bias(self, change: Any, layer: int) -> Policy:
        return Policy(ALWAYS, pushes=[Steer(layer, change)] * len(self._material.moves))

    def _random(self, draw: int) -> list[Steer | None]:
        """A random direction in the place of each vector, as large."""
        rng = np.random.default_rng((self._own.seed, 31, draw))
        pushes = self._pushes(self._best, self._multiple[self._best])
        return [
            push and Steer(push.layer, random_direction(len(push.change), rng) * push.change.norm())
            for push in pushes
        ]

    @cached_property
    def _words(self) -> list[tuple[int, ...]]:
        """The opening with which the RL model most often starts each move."""
        openings = {
            move: THINK if move == ENTRY else opening_of(self._material, index, ALL_OPENINGS[move])
            for index, move in enumerate(self._material.moves, 1)
        }
        self._chosen["cue words"] = openings
        return [continuation_ids(self._models[BASE], opening) for opening in openings.values()]


def _accuracies(rollouts: pd.DataFrame) -> Mapping[tuple[str, str], float]:
    right = rollouts.assign(correct=rollouts.correct.astype(float))
    found: dict[tuple[str, str], float] = (
        right.groupby(["policy", "vector"]).correct.mean().to_dict()
    )
    return found
