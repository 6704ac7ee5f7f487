"""When and how: what both models would do at the same opportunities, and what they make of a start.

1. Both models are made to think about the same problems; their thoughts are annotated.
2. Both read every thought; at each opportunity the mass of the move's openings is exact (`rates`).
3. At the RL model's onsets the move is started for both by words (`validity`) and, in the base, by
   pushes of the residual against controls (`triggers`).
4. Beside it stand pass@k, corrupted thoughts, nats on content words and the change of weights.

Whatever is chosen (wording, direction, dose) is chosen on the select split. Each step's result is
kept as a part, so a killed run goes on from there.
"""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_reasoning.config import Config, ConfigError
from sae_reasoning.contrast import beside, triggers
from sae_reasoning.contrast.execution import Begun, Start, corrupted, rl_starts
from sae_reasoning.contrast.measures import BASE, MODELS, RL, Measure, Resampling
from sae_reasoning.contrast.rates import Place, places_of, rates
from sae_reasoning.contrast.reach import Tries, pass_summary, pass_told, reach, walked
from sae_reasoning.contrast.triggers import Chosen
from sae_reasoning.contrast.validity import validity
from sae_reasoning.contrast.weights import weight_changes
from sae_reasoning.edges.artifacts import Manifest, Stage, read_json, require_stage, write_json
from sae_reasoning.edges.console import Console
from sae_reasoning.edges.inputs import models_in, outside_inputs
from sae_reasoning.edges.lm.adapter import compared_parameters
from sae_reasoning.edges.lm.attribute import mean_slope, onset_gradients
from sae_reasoning.edges.lm.branch import log_probs_at, opening_probabilities
from sae_reasoning.edges.lm.load import LanguageModel, continuation_ids, load
from sae_reasoning.edges.lm.offsets import offsets_of
from sae_reasoning.edges.lm.read import token_log_probs
from sae_reasoning.edges.lm.write import Written, begun_ids, write
from sae_reasoning.edges.sae_checkpoint import load_dictionary
from sae_reasoning.edges.tables import read_traces, write_table, write_traces
from sae_reasoning.edges.tracker import Tracker
from sae_reasoning.records import Trace
from sae_reasoning.steering.noise import keyed_sampler
from sae_reasoning.steering.triggers import (
    ANNOUNCERS,
    ASCENT,
    Candidates,
    Direction,
    Push,
    ascend,
    candidates,
    push_once,
    unit,
)
from sae_reasoning.tasks.marks import MarkEnd
from sae_reasoning.tasks.search import grammar
from sae_reasoning.tasks.search.grammar import ALL_OPENINGS
from sae_reasoning.tasks.search.world import parse_prompt
from sae_reasoning.traces.align import Rollout
from sae_reasoning.traces.annotate import annotator_for
from sae_reasoning.traces.problems import posed_in

_SPLITS = ("select", "report")


def contrast(cfg: Config, *, tracker: Tracker, console: Console) -> Manifest:
    """Make `contrast.parquet`, `pass.parquet`, `triggers.json` and `thoughts.parquet`."""
    inputs = _inputs(cfg)
    with Stage(cfg.folder / "contrast", cfg.settings("contrast"), inputs) as stage:
        if stage.is_current:
            console.current("contrast", stage.final)
            assert stage.manifest
            return stage.manifest
        lab = _Lab(cfg, stage, console)
        console.plan("contrast", lab.lines())
        thoughts = lab.thoughts()
        places = places_of(thoughts, lab.behaviours)
        log_probs = lab.log_probs(thoughts, places)
        starts = rl_starts(thoughts, places, lab.behaviours, lab.num_starts, cfg.contrast.seed)
        steps: dict[str, Callable[[], list[Measure]]] = {
            "rates": lambda: lab.rates(thoughts, places, log_probs),
            "validity": lambda: lab.validity(starts, log_probs),
            "triggers": lambda: lab.triggers(thoughts, places, starts, stage),
            "pass@k": lambda: lab.reach(stage),
            "corrupted thoughts": lambda: lab.corrupted(thoughts),
            "nats on content": lambda: lab.content_gap(thoughts),
            "weights": lab.weights,
        }
        found: list[Measure] = []
        for name, step in steps.items():
            console.say(f"contrast: {name}")
            found += lab.measures(name, step)
        table = pd.DataFrame([asdict(measure) for measure in found])
        write_table(stage.folder / "contrast.parquet", table)
        write_traces(stage.folder / "thoughts.parquet", thoughts)
        shutil.rmtree(stage.folder / "parts", ignore_errors=True)
        counts = {"measures": len(found), "thoughts": len(thoughts), "starts": len(starts)}
        manifest = stage.finish(counts | {"opportunities": len(places)})
    tracker.table("contrast", table)
    tracker.summary(manifest.counts)
    moves = beside.summary(found, cfg.contrast.behaviours or cfg.behaviours)
    console.table("what both models would do, report split", list(moves), moves.values.tolist(), 10)
    passes = pass_summary(found)
    console.detail("pass@k, report split", list(passes), passes.values.tolist())
    for line in pass_told(found):
        console.say(f"  {line}")
    console.wrote(stage.final, manifest)
    console.next("report")
    return manifest


def _inputs(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is read; dictionaries only if announcers are asked for."""
    if annotator_for(cfg.traces.source) is None:
        raise ConfigError(
            f"traces.source={cfg.traces.source} has no annotator for new text, so thoughts can't "
            "be read; use traces.source=search"
        )
    if not {*cfg.contrast.behaviours} <= {*grammar.MOVES}:
        raise ConfigError(
            f"contrast.behaviours={cfg.contrast.behaviours} has what the search world's grammar "
            f"doesn't mark; choose of {', '.join(grammar.MOVES)}"
        )
    now = outside_inputs(cfg)
    needed = ["traces"]
    if ANNOUNCERS in cfg.contrast.triggers:
        needed += ["train", "rank"]
    return models_in(cfg, now) | {
        name: require_stage(cfg.folder, name, cfg.settings(name), now).fingerprint
        for name in needed
    }


class _Lab:
    """Both models on the bench, with the problems of both splits."""

    def __init__(self, cfg: Config, stage: Stage, console: Console) -> None:
        self._cfg, self._own, self._console = cfg, cfg.contrast, console
        self._parts = stage.folder / "parts"
        self._how = Resampling(self._own.bootstrap, self._own.seed)
        self.behaviours = self._own.behaviours or cfg.behaviours
        self.num_starts = {"select": self._own.select_starts, "report": self._own.report_starts}
        most = {"select": self._own.select_problems, "report": self._own.report_problems}
        traces = read_traces(cfg.folder / "traces" / "traces.parquet")
        self._problems = posed_in(traces, most, cfg.traces.report_share)
        self._tried = self._problems["report"][: self._own.pass_problems]

    def lines(self) -> dict[str, Any]:
        """The plan."""
        own = self._own
        return {
            "behaviours": ", ".join(self.behaviours),
            "problems": ", ".join(f"{s}: {len(p)}" for s, p in self._problems.items()),
            "thoughts": f"{own.samples} a problem and model",
            "triggers": f"{', '.join(own.triggers)}; doses {own.doses}",
            "pass@k": f"{len(self._tried)} problems × {own.pass_samples}",
        }

    @cached_property
    def _models(self) -> dict[str, LanguageModel]:
        return {model: load(getattr(self._cfg.pair, model), self._cfg.device) for model in MODELS}

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, from disk if an earlier run got so far."""
        path = self._parts / f"{name.replace(' ', '_')}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def measures(self, name: str, make: Callable[[], list[Measure]]) -> list[Measure]:
        """The same for measures."""
        rows = self.part(name, lambda: [asdict(measure) for measure in make()])
        return [Measure(**row) for row in rows]

    def _write(
        self,
        model: str,
        prompts: Sequence[str],
        beginnings: Sequence[Begun],
        keys: Sequence[tuple[int, int]],
        *,
        max_new_tokens: int,
        pushes: Sequence[Push] | None = None,
        until: MarkEnd | None = None,
    ) -> list[Written]:
        noise = torch.tensor([[self._own.seed, *key] for key in keys]).reshape(-1, 3)
        lm = self._models[model]
        return write(
            lm,
            prompts,
            [
                begun_ids(lm, one.before if one.token_ids is None else one.token_ids, one.opening)
                for one in beginnings
            ],
            sampler=keyed_sampler(noise, self._own.temperature),
            max_new_tokens=max_new_tokens,
            batch_size=self._own.batch_size,
            edits=push_once(pushes) if pushes else None,
            until=until,
        )

    def thoughts(self) -> list[Trace]:
        """Rollouts of both models, made to think; select before report, base before RL."""
        made = []
        for split in _SPLITS:
            for model in MODELS:
                path = self._parts / f"{split}_{model}.parquet"
                if not path.exists():
                    self._console.say(f"contrast: {model} thinks about {split} problems")
                    write_traces(path, self._think(split, model))
                made += read_traces(path)
        return made

    def _think(self, split: str, model: str) -> list[Trace]:
        lm = self._models[model]
        tasks = [(p, s) for p in self._problems[split] for s in range(self._own.samples)]
        made = self._write(
            model,
            [problem.prompt for problem, _ in tasks],
            [Begun(grammar.THINK)] * len(tasks),
            # Apart from the noise of `traces`, whose samples count from 0.
            [(problem.key, 10_000 + sample) for problem, sample in tasks],
            max_new_tokens=self._own.max_new_tokens,
        )
        found = []
        for (problem, sample), one in zip(tasks, made, strict=True):
            ids = one.response_ids
            offsets = offsets_of(lm.tokenizer, ids, one.text)
            found.append(
                Rollout(one.prompt_ids, ids, offsets, one.end_id, one.text).annotated(
                    problem, self._cfg.traces.source, model, lm.facts.name, f"thought{sample}"
                )
            )
        return found

    def log_probs(
        self, thoughts: Sequence[Trace], places: Sequence[Place]
    ) -> dict[str, list[list[float]]]:
        """Of each model and place, the log-probability of each opening of the place's move."""
        found = {}
        for model in MODELS:

            def read(model: str = model) -> list[list[float]]:
                self._console.say(f"contrast: {model} reads {len(places):,} opportunities")
                return log_probs_at(
                    self._models[model],
                    [thought.token_ids for thought in thoughts],
                    [(place.thought, place.token) for place in places],
                    [ALL_OPENINGS[place.behaviour] for place in places],
                    self._own.token_budget,
                )

            found[model] = self.part(f"log_probs_{model}", read)
        return found

    def rates(
        self,
        thoughts: Sequence[Trace],
        places: Sequence[Place],
        log_probs: dict[str, list[list[float]]],
    ) -> list[Measure]:
        """Onset mass per trace and per opportunity, on the report split."""
        problems = self._problems["report"]
        entries = {}
        for model in MODELS:
            values = opening_probabilities(
                self._models[model],
                [problem.prompt for problem in problems],
                grammar.THINK,
                self._own.token_budget,
            )
            entries[model] = {
                problem.problem_id: value for problem, value in zip(problems, values, strict=True)
            }
        masses = {
            model: np.array([np.exp(own).sum() for own in log_probs[model]]) for model in MODELS
        }
        return rates(thoughts, places, masses, entries, self.behaviours, self._how)

    def validity(
        self, starts: Sequence[Start], log_probs: dict[str, list[list[float]]]
    ) -> list[Measure]:
        """What both models make of a start by words."""

        def continue_(
            model: str,
            prompts: Sequence[str],
            beginnings: Sequence[Begun],
            keys: Sequence[tuple[int, int]],
        ) -> list[str]:
            made = self._write(
                model,
                prompts,
                beginnings,
                keys,
                max_new_tokens=self._own.move_tokens,
                until=MarkEnd("."),
            )
            return [one.added for one in made]

        return [
            measure
            for behaviour in self.behaviours
            for measure in validity(
                [start for start in starts if start.behaviour == behaviour],
                log_probs,
                continue_,
                tries=self._own.best_of,
                how=self._how,
            )
        ]

    def triggers(
        self,
        thoughts: Sequence[Trace],
        places: Sequence[Place],
        starts: Sequence[Start],
        stage: Stage,
    ) -> list[Measure]:
        """What the base makes of a push, against controls."""
        chosen: list[Chosen] = []
        controls: dict[str, list[Chosen]] = {}
        rng = np.random.default_rng((self._own.seed, 23))
        for behaviour in self.behaviours:
            own = [s for s in starts if (s.behaviour, s.split) == (behaviour, "select")]
            if not own:
                continue
            directions, found = self._directions(behaviour, own, thoughts, places)
            norms = {layer: one.norm for layer, one in found.items()}
            seed, doses = self._own.seed, self._own.doses
            tried = triggers.choose(own, directions, norms, doses, self._pushed, seed)
            if tried:
                best, count = tried[0], self._own.controls
                by_lot = triggers.random_directions(best.layer, len(best.direction), count, rng)
                rivals = [*by_lot, *found[best.layer].permuted]
                chosen.append(best)
                controls[behaviour] = triggers.choose(own, rivals, norms, doses, self._pushed, seed)
        listed = [vars(one) | {"direction": one.direction.tolist()} for one in chosen]
        write_json(stage.folder / "triggers.json", listed)
        compared: list[Measure] = []
        for best in chosen:
            own = [s for s in starts if (s.behaviour, s.split) == (best.behaviour, "report")]
            others = [other for other in chosen if other is not best]
            if own:
                compared += triggers.compare(
                    own, best, controls[best.behaviour], others, self._pushed, self._how
                )
        return compared

    def _pushed(self, starts: Sequence[Start], pushes: Sequence[Push]) -> list[str]:
        made = self._write(
            BASE,
            [start.prompt for start in starts],
            [start.started() for start in starts],
            [(start.place, 2000) for start in starts],
            max_new_tokens=self._own.move_tokens,
            pushes=pushes,
            until=MarkEnd("."),
        )
        return [one.added for one in made]

    def _directions(
        self,
        behaviour: str,
        starts: Sequence[Start],
        thoughts: Sequence[Trace],
        places: Sequence[Place],
    ) -> tuple[list[Direction], dict[int, Candidates]]:
        """Directions to try for a move, and what each layer gave."""
        lm, layers, num_permuted = self._models[BASE], self._cfg.layers, self._own.controls
        rng = random.Random(f"elsewhere/{self._own.seed}/{behaviour}")
        possible = {(p.thought, p.token) for p in places if p.behaviour == behaviour}
        ends = [
            (index, o.token)
            for index, thought in enumerate(thoughts)
            if thought.split == "select" and thought.writer == RL
            for o in thought.opportunities
            if (index, o.token) not in possible
        ]
        elsewhere = rng.sample(ends, min(len(ends), max(len(starts), 2)))
        prefixes = [start.prefix for start in starts]
        prefixes += [thoughts[index].token_ids[: token + 1] for index, token in elsewhere]
        openers = [continuation_ids(lm, opening) for opening in ALL_OPENINGS[behaviour]]
        size = lm.facts.d_model
        resid = {layer: torch.zeros(len(prefixes), size) for layer in layers}
        slopes = {layer: torch.zeros(len(prefixes), size) for layer in layers}
        wanted = [openers] * len(prefixes)
        for batch in onset_gradients(lm, prefixes, wanted, layers, self._own.token_budget):
            for layer in layers:
                resid[layer][batch.rows] = batch.residuals[layer].cpu()
                slopes[layer][batch.rows] = batch.gradients[layer].cpu()
        kinds, count, key = self._own.triggers, len(starts), f"{self._own.seed}/{behaviour}"
        found = {
            x: candidates(kinds, x, resid[x], slopes[x], count, num_permuted, key) for x in layers
        }
        directions = [direction for one in found.values() for direction in one.directions]
        if ASCENT in kinds:
            onsets, budget = prefixes[: len(starts)], self._own.token_budget
            for layer in layers:
                begun = unit(slopes[layer][: len(starts)].mean(0))
                climb = partial(mean_slope, lm, onsets, openers, layer, budget)
                risen = ascend(begun, found[layer].norm, climb)
                directions.append(Direction(ASCENT, layer, risen))
        if ANNOUNCERS in self._own.triggers:
            directions += self._announcers(behaviour)
        return directions, found

    def _announcers(self, behaviour: str) -> list[Direction]:
        """The best announcers of each layer, averaged."""
        shortlist = read_json(self._cfg.folder / "rank" / "shortlist.json")
        found = []
        for name, where in shortlist["dictionaries"].items():
            dictionary = load_dictionary(self._cfg.folder / where["folder"])
            own = [
                entry["latent"]
                for entry in shortlist["announcers"].get(behaviour, [])
                if entry["dictionary"] == name
            ][: self._own.announcers]
            if own and dictionary.layer in self._cfg.layers:
                rows = dictionary.W_dec[own].float().cpu()
                found.append(Direction(ANNOUNCERS, dictionary.layer, unit(rows.mean(0))))
        return found

    def reach(self, stage: Stage) -> list[Measure]:
        """pass@k of both models and of walks by chance, on report problems."""
        tries = walked({p.problem_id: parse_prompt(p.prompt) for p in self._tried})
        for model in MODELS:
            made = self.part(f"tries_{model}", partial(self._tries, model))
            tries += [Tries(**row) for row in made]
        write_table(stage.folder / "pass.parquet", pd.DataFrame([asdict(one) for one in tries]))
        return reach(tries, self._how)

    def _tries(self, model: str) -> list[dict[str, Any]]:
        problems, size = self._tried, self._own.pass_samples
        rows = [(problem, sample) for problem in problems for sample in range(size)]
        made = self._write(
            model,
            [problem.prompt for problem, _ in rows],
            [Begun("")] * len(rows),
            [(problem.key, 20_000 + sample) for problem, sample in rows],
            max_new_tokens=self._own.max_new_tokens,
        )
        found = []
        for number, problem in enumerate(problems):
            own = made[number * size : (number + 1) * size]
            right = sum(beside.is_right(problem.prompt, one.text) for one in own)
            cut = sum(one.truncated for one in own)
            tokens = sum(len(one.token_ids) for one in own) / size
            one = problem.problem_id
            found.append(asdict(Tries(model, one, size, right, cut, tokens, right / size)))
        return found

    def corrupted(self, thoughts: Sequence[Trace]) -> list[Measure]:
        """What the RL model answers after its own thoughts, whole and corrupted."""
        own = [t for t in thoughts if (t.split, t.writer) == ("report", RL)]
        finished = [thought for thought in own if grammar.END_THINK in thought.text]
        chosen = finished[: self._own.corrupted_traces]
        if len({thought.problem_id for thought in chosen}) < 2:
            return []
        rng = random.Random(f"corrupted/{self._own.seed}")
        versions = [corrupted(thought, finished, rng) for thought in chosen]
        found = []
        for condition in versions[0]:
            asked = f"{grammar.END_THINK} {grammar.ANSWER}"
            beginnings = [Begun(f"{version[condition]} {asked}") for version in versions]
            made = self._write(
                RL,
                [thought.prompt for thought in chosen],
                beginnings,
                [(index, 3000) for index in range(len(chosen))],
                max_new_tokens=self._own.move_tokens,
                until=MarkEnd("."),
            )
            texts = [one.text for one in made]
            found.append(beside.accuracy_after(condition, chosen, texts, self._how))
        return found

    def content_gap(self, thoughts: Sequence[Trace]) -> list[Measure]:
        """Nats that the base pays beyond the RL model on the content of the RL model's moves."""
        own = [t for t in thoughts if (t.split, t.writer) == ("report", RL)]
        losses = {
            model: [
                -values
                for values in token_log_probs(
                    self._models[model], [t.token_ids for t in own], self._own.token_budget
                )
            ]
            for model in MODELS
        }
        tokenizer = self._models[RL].tokenizer
        offsets = [offsets_of(tokenizer, t.token_ids[t.num_prompt_tokens :], t.text) for t in own]
        return beside.content_gap(own, offsets, losses, self.behaviours, self._how)

    def weights(self) -> list[Measure]:
        """How much training changed, by module."""
        before, after = compared_parameters(*(self._models[m].model for m in MODELS))
        return beside.weight_measures(weight_changes(before, after))
